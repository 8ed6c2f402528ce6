"""Why a raw file was rejected: the reason codes in rejected.csv, for all datasets."""

REASONS = {
    "lfs_pointer": "a git-lfs pointer instead of the file: run `git lfs pull` in the raw folder",
    "unreadable": "empty, not a media file, or a container that does not open",
    "truncated": "the file ends early and less than 3 s of it can be decoded",
    "no_audio": "no audio track (and no other file that has one)",
    "silent": "the audio track is silent, and --drop_silent was given",
    "no_video": "no video track",
    "few_frames": "fewer frames than a sample needs",
    "bad_values": "the decoded values are not finite",
    "no_flow": "no optical flow: no precomputed images, or frames too small to compute it",
    "bad_image": "an image that is truncated, damaged, or larger than allowed",
    "decoder_crash": "the decoder crashed or hung on this file",
    "unknown_name": "the name matches no file of this dataset",
    "missing_file": "a list names the file, but it does not exist",
    "no_label": "neither a list nor the folder gives its class",
    "no_text": "no list gives it a readable text",
    "label_conflict": "list and folder give different classes: the one from the list was used",
    "bad_line": "a line of a list that does not have this dataset's format",
    "open_quote": "a line of a list opens a quote and does not close it: read up to the line's end",
    "header_line": "the first line of a list, with column names instead of a sample",
    "outside_root": "a list names a path outside its folder",
    "filtered": "left out by a rule of the dataset's literature",
    "duplicate": "the same id occurred before: the first was used",
    "second_file": "another file of the same sample: only read if the earlier ones do not decode",
    "empty_event": "the list gives the event no duration, or times that are not numbers",
}
# Findings that are written to rejected.csv although the sample is kept.
KEPT_REASONS = ("label_conflict", "open_quote", "second_file")


class Reject(Exception):
    """A file that cannot become a sample; `reason` is a key of `REASONS`."""

    def __init__(self, reason: str, detail: str = ""):
        assert reason in REASONS, reason
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail
