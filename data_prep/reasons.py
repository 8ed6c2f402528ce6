"""Why a raw file did not become a sample: the codes of rejected.csv, for every dataset."""

REASONS = {
    "lfs_pointer": "a git-lfs pointer instead of the file: run `git lfs pull` in the raw folder",
    "unreadable": "empty, not a media file, or a container that does not open",
    "truncated": "the file ends early and less than 3 s of it decode",
    "no_audio": "no audio track (and no other file that has one)",
    "silent": "no sound in the track, and --drop_silent was given",
    "no_video": "no video track",
    "few_frames": "fewer frames than a sample needs",
    "bad_values": "the decoded values are not finite",
    "no_flow": "no optical flow: no precomputed pictures, or frames too small to compute it",
    "bad_image": "a picture that is cut off, damaged, or larger than allowed",
    "decoder_crash": "the decoder crashed or hung on this file",
    "unknown_name": "the name fits no file of this dataset",
    "missing_file": "a list names the file, and it is not there",
    "no_label": "neither a list nor the folder gives its class",
    "no_text": "no list gives it a text that can be read",
    "label_conflict": "list and folder give different classes: the list's was taken",
    "bad_line": "a line of a list that does not have the form of this dataset's lines",
    "open_quote": "a line of a list opens a quote that nothing closes: it was read to its own end",
    "header_line": "the first line of a list, which names its columns and no sample",
    "outside_root": "a list names a path that leads out of its folder",
    "filtered": "its text holds a word that the dataset's authors filter out",
    "duplicate": "the same id occurred before: the first was taken",
    "second_file": "another file of the same sample: read only where those before it do not decode",
    "empty_event": "the list gives the event no length, or no times that are numbers",
}
# Findings that are written to rejected.csv although the sample itself is kept.
KEPT_REASONS = ("label_conflict", "open_quote", "second_file")


class Reject(Exception):
    """A file that cannot become a sample; `reason` is a key of `REASONS`."""

    def __init__(self, reason: str, detail: str = ""):
        assert reason in REASONS, reason
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail
