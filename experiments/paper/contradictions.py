"""Where the paper's text and tables, and its authors' release, contradict one another, as data.

Each number is the paper's own or the difference of two of them; what is our inference says so. The
release is commit d25b225, read and run.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Contradiction:
    """`about`: the tables of the registry that it touches."""

    title: str
    text: str
    about: tuple[str, ...] = ()


CONTRADICTIONS = (
    Contradiction(
        "Three results of MIDAS on Food-101",
        "Accuracy and F1 are 93.46 ± 0.36 and 89.02 ± 0.62 in Tables 1 and 2, 93.11 ± 0.35 and"
        " 88.48 ± 0.60 in Table 3, 93.82 and 89.56 in Tables 4 and 6.",
        ("table1", "table2", "table3", "table4", "table6"),
    ),
    Contradiction(
        "Equal numbers in different cells of Table 2",
        "On Food-101, W alone has the means of the full method, 93.46 and 89.02, with other"
        " deviations (0.32 and 0.48, against 0.36 and 0.62). On CREMA-D, the accuracy of the row"
        " without any part, 72.32 ± 0.52, is that of W alone on Kinetics-Sounds to the last digit,"
        " and the deviation of its F1, 3.14, does not go with 0.52: probably an error of copying"
        " (an inference).",
        ("table2",),
    ),
    Contradiction(
        "Not each component contributes",
        "Sec. 4.3 says that each component alone improves the result. On CREMA-D, W alone (71.25)"
        " and WM alone (72.28) stay below the row without any (72.32); on UCF-101, WM + HS without"
        " warm-up (93.95) stays below it as well (94.16). All three together are said to be"
        " consistently the best; on Food-101 HS alone is better (93.51 and 89.21, against 93.46"
        " and 89.02).",
        ("table2",),
    ),
    Contradiction(
        "Not the best on all data sets",
        "Sec. 4.2 says that MIDAS outperforms the baselines on all data sets in accuracy and F1."
        " On UCF-101, SMV has 95.24 and 91.80, MIDAS 95.20 and 91.66; the same section then calls"
        " them comparable, because SMV trains on about three times the data.",
        ("table1",),
    ),
    Contradiction(
        "The gains are not over methods that use aligned samples alone",
        "The gains of 3.13 and 4.08 points (Kinetics-Sounds, CREMA-D) are said to be over the best"
        " baselines trained solely on aligned samples. They are over MCR (71.75 and 70.91), which"
        " by the same section uses misaligned samples, as does LFM. Over the best of the others"
        " they are larger: 7.53 over OPM on Kinetics-Sounds (67.35), 5.08 over AMCo on CREMA-D"
        " (69.91).",
        ("table1",),
    ),
    Contradiction(
        "Several results of one setting, and a lambda that is not the best",
        "MIDAS on CREMA-D is 74.99 in Tables 1 to 3, 75.00 in Tables 4 and 6 and in Sec. A.4, and"
        " 73.7 in the analysis of modalities in Sec. A.4, where Joint training is 60.2 instead of"
        " 60.28. MIDAS on Kinetics-Sounds is 74.88 in Tables 1 and 2, 75.26 in Tables 4 and 6."
        " There lambda = 5 is used, although 10 has the higher accuracy in Table 6 (75.34; its F1"
        " of 68.10 is lower than 68.34). That Joint training on Kinetics-Sounds is 63.92 in Table 1"
        " and 65.5 in Figure 1a is no contradiction: the figure shows the validation part.",
        ("table1", "table4", "table6", "text-confusion", "text-zero"),
    ),
    Contradiction(
        "Algorithm 1 against the text",
        "Line 17 shuffles the batch without looking at labels, while Sec. 3.2 and Eq. 12 demand"
        " partners of another class. It makes one misaligned sample of each sample; Secs. 3.2 and"
        " 3.6 make two. Line 11 sets alpha back to 1 in each epoch, while in Figure 4 it grows over"
        " the training; line 1 is then without effect. The warm-up lasts while epoch < E_w with"
        " epochs from 1, so it has E_w - 1 epochs. The value of E_w is stated nowhere in the paper;"
        " the authors' release has 10, 10 and 2 (CREMA-D, Kinetics-Sounds, Food-101). In Sec. 3.4"
        " one symbol stands for a modality's share in the unimodal confidences and for that in the"
        " fused prediction.",
    ),
    Contradiction(
        "The release against the equations",
        "The authors' release takes half of the sum of the unimodal losses, where Eq. 9 has the"
        " sum. It pairs samples by a permutation without looking at labels, and keeps pairs of"
        " one class, where Sec. 3.2 and Eq. 12 demand another class. It has a single alpha, which"
        " applies to whichever modality is weak in the batch and changes in every step, where Eqs."
        " 5 to 7 have one alpha per modality, set the others back to 1, and may leave it unchanged;"
        " and it compares ratios of batch means, where the paper compares shares. On"
        " Kinetics-Sounds the fused ratio is inverted in batches in which video leads, while the"
        " unimodal one is not, and alpha is at most 10. Except on Food-101, its StepLR counts only"
        " the epochs after the warm-up, of which the paper says nothing: with 70 epochs and a"
        " warm-up of 10, the learning rate falls after epoch 60, and Joint's after 50. Each of"
        " these is a switch of --method Midas, and --recipe official sets them all.",
        ("table1", "table2", "table3", "extra-controls", "extra-recipe"),
    ),
    Contradiction(
        "The release against the tables and figures",
        "On UCF-101 the release has no warm-up, where Table 2 has 93.95 without and 95.20 with"
        " it, and Table 1 prints the latter. On Kinetics-Sounds it cuts the held-out samples at"
        " 2/3, which gives 2,413 and 4,826, where Table 5 has 2,461 and 4,778. What it records"
        " for Figure 3 are raw means, Uni on aligned samples and Multi in one direction, where"
        " the figure's caption says normalised, and its text misaligned samples. None of the four"
        " commands of its README runs to its end. So the printed results come from other files"
        " (an inference), and --recipe official leaves out the first two.",
        ("table1", "table2", "table5"),
    ),
    Contradiction(
        "Diverged runs among the results",
        "On Food-101, lambda = 5 in Table 6 (65.20 and 52.11) and WM + HS in Table 2 (74.41 ± 16.4"
        " and 64.24 ± 21.4) are far below all their neighbours: some of their runs diverged (an"
        " inference). They are no stable values, to be compared loosely.",
        ("table2", "table6"),
    ),
    Contradiction(
        "No ± where one is announced",
        "Sec. 4 announces mean and standard deviation over three runs for all experiments. Tables"
        " 4, 6, 7 and 8 and the numbers of the text have no deviation, so their cells cannot be"
        " tested.",
        ("table4", "table6", "table7", "table8", "text-mosi", "text-confusion", "text-zero"),
    ),
    Contradiction(
        "The F1 cannot be that of the whole test part",
        "With classes of equal size, an accuracy of a allows no macro-F1 below 2a²/(1 + a). All 14"
        " rows of UCF-101 and Food-101 in Table 1 lie below: 91.35 % allows no F1 under 87.22 %,"
        " and 85.75 is printed. Predictions with errors spread evenly, of the printed accuracies"
        " and the printed test sizes, have a macro-F1 that is off by 5.5 points (root mean square"
        " over the 28 cells) when it is computed over the whole part, and by 0.4 points when it is"
        " the mean over shuffled batches of 64, the batch size of Sec. A.3; batches of 32 give 1.6,"
        " of 128 2.4 (benchmarks/f1_claim.py). The authors' released test code computes just that:"
        " the mean over batches of 64, each weighted by its size. It depends on the order of the"
        " samples. We report both, and compare the batches'.",
        ("table1", "table2", "table3", "table4", "table6"),
    ),
    Contradiction(
        "The Sarcasm sizes of Sec. A.4 follow from no rule",
        "17,316, 2,463 and 4,936 samples (24,715) are no cut in two steps by round shares. The"
        " other sets are, to the unit (but CMU-MOSI, which has its standard parts): 30 % are held"
        " out, and 2/3 of them (0.66 for Kinetics-Sounds) are the test part, both rounded up. The"
        " released lists give 24,635 samples after the filter of their authors, 80 fewer.",
        ("table5", "table7"),
    ),
)
