"""The alpha of MIDAS's official release (commit d25b225): `--alpha_rule ratio` and variants.

A single alpha applies to whichever modality is weak in the current batch, and ratios of batch means
replace the paper's shares (Eq. 5 - 7): models/model_midas_cremad.py, 124-169.

    ratio_2over1    model_midas_food101.py, 124: the ratios are modality 2 over 1
    ratio_inverted  model_midas_kinetics.py, 127-162: if rho <= 1, r is inverted but rho is not
"""

import torch
from torch import Tensor


def ratio(mean: Tensor, rule: str) -> Tensor:
    """Ratio of the means [..., 2]: modality 1 over 2, or 2 over 1."""
    over = int(rule == "ratio_2over1")
    return mean[..., over] / mean[..., 1 - over]


def carry_alpha(alpha: Tensor, rho: Tensor, rule: str) -> tuple[Tensor, Tensor]:
    """(alpha [2] for this step, 1 for the stronger modality; mask [2] of the weak modality).

    rho [] is the ratio of the heads' mean probabilities of the true labels.
    """
    numerator_is_weak = ~(rho > 1)
    weakest = torch.stack([numerator_is_weak, ~numerator_is_weak])
    if rule == "ratio_2over1":
        weakest = weakest.flip(0)
    return torch.where(weakest, alpha.max(), 1.0), weakest


def update_alpha_by_ratio(
    alpha: Tensor, weakest: Tensor, rho: Tensor, p: Tensor, eta: float, rule: str, cap: float = 0.0
) -> tuple[Tensor, Tensor]:
    """(new alpha [2], fused ratio r []), for alpha and mask as returned by `carry_alpha`.

    p [D, 2]: mean fused probability of each modality's own label in each direction. alpha always
    moves by eta, clamped to [1, `cap`] (0: no cap); NaN leaves it unchanged.
    """
    ratios = ratio(p, rule)
    r = ratios.mean()
    rises = torch.where(rho > 1, r > rho, r < rho)
    if rule == "ratio_inverted":
        r = torch.where(rho > 1, r, (1 / ratios).mean())
        rises = r > rho
    step = eta * (2 * rises.to(alpha.dtype) - 1)
    moved = (alpha.max() + step).clamp(1.0, cap or torch.inf)
    moved = torch.where(weakest, moved, 1.0)
    return torch.where((rho + r).isnan(), alpha, moved), r
