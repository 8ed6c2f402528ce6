"""The registry of training methods: public name -> module and one line of help.

Modules are imported on use, so that `train.py --help` and a wrong name do not import torch.
To add a method: write `methods/<file>.py` with a `Method` subclass (see `methods/base.py`) and add
a line here.
"""

import importlib
from typing import TYPE_CHECKING

from common.options import match_name

if TYPE_CHECKING:
    from methods.base import Method

METHODS = {
    "Midas": ("methods.midas", "MIDAS: misaligned samples, labels by confidence (NeurIPS 2025)"),
    "Joint": ("methods.joint", "joint training: one cross-entropy on concatenated features"),
    "JointUni": ("methods.joint", "Joint plus the unimodal losses: the control for MIDAS's gain"),
    "Unimodal": ("methods.joint", "one modality alone (--modality)"),
    "SMV": ("methods.smv", "re-samples by sample-level modality valuation (CVPR 2024)"),
    "OPM": ("methods.opm", "drops the leading modality's features at random (TPAMI 2024)"),
    "OGM": ("methods.ogm", "slows the leading modality's encoder, OGM-GE (CVPR 2022)"),
    "AMCo": ("methods.amco", "masks the modality that the model depends on (ICASSP 2023)"),
    "LFM": ("methods.lfm", "shifts from matching modalities to fitting labels (NeurIPS 2024)"),
    "MCR": ("methods.mcr", "encoders as players of a mutual-information game (NeurIPS 2025)"),
    "Mixup": ("methods.mixup", "mixes pairs of samples in embedding space"),
    "PowMix": ("methods.powmix", "mixes batches before fusion, a reconstruction (TASLP 2024)"),
    "LeMDA": ("methods.lemda", "learns to perturb the fused features (ICLR 2023)"),
    "ARL": ("methods.arl", "asymmetric learning by reliance and variance (ICCV 2025)"),
    "GMM": ("methods.gmm", "adaptive loss by a mixture of modality gaps, our formulation"),
    "GBlending": ("methods.gblending", "weights by generalisation and overfitting (CVPR 2020)"),
    "MMCosine": ("methods.mmcosine", "sums the modalities' cosines as logits (ICASSP 2023)"),
    "PMR": ("methods.pmr", "pulls the slower modality towards class prototypes (CVPR 2023)"),
    "MBSD": ("methods.mbsd", "the surer modality teaches the other, our formulation (WSDM 2023)"),
    "AGM": ("methods.agm", "slows a modality whose Shapley-based lead has grown (ICCV 2023)"),
    "UMT": ("methods.umt", "distils encoders that were first trained alone (ICML 2023)"),
    "CML": ("methods.cml", "no gain in confidence when a modality is removed (ICML 2023)"),
    "MLA": ("methods.mla", "alternates modalities through one projected head (CVPR 2024)"),
    "MMPareto": ("methods.mmpareto", "common direction of joint and unimodal losses (ICML 2024)"),
    "ReconBoost": ("methods.reconboost", "modalities as boosted learners, in turns (ICML 2024)"),
    "MLB": ("methods.mlb", "unimodal losses, gradients scaled down and up (BMVC 2024)"),
    "ReLearning": ("methods.relearning", "moves overfitted encoders back to start (ECCV 2024)"),
    "InfoReg": ("methods.inforeg", "slows the leader in the prime learning window (CVPR 2025)"),
    "Remix": ("methods.remix", "single-modality batches of samples it is unsure of (ICML 2025)"),
    "DGL": ("methods.dgl", "unimodal losses for encoders, joint loss for fusion (ICCV 2025)"),
    "IPRM": ("methods.iprm", "geodesic fusion, re-weighted by a probe in each step (IJCAI 2025)"),
    "MNL": ("methods.mnl", "the surer modality teaches which classes it is not (NeurIPS 2025)"),
    "AUG": ("methods.aug", "gives the weak modality more heads, by boosting (NeurIPS 2025)"),
}


def load(name: str) -> "type[Method]":
    """The class of a method, ignoring case; raises `UsageError` if the name is unknown."""
    public = match_name("method", name, METHODS)
    return getattr(importlib.import_module(METHODS[public][0]), public)
