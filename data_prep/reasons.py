"""Why a raw file did not become a sample: the codes of rejected.csv, for every data set."""

# Why a raw file did not become a sample. `rejected.csv` holds one of these codes a line.
REASONS = {
    "lfs_pointer": "a git-lfs pointer instead of the file: run `git lfs pull` in the raw folder",
    "unreadable": "empty, not a media file, or a container that does not open",
    "truncated": "the file ends early and less than 3 s of it decode",
    "no_audio": "no audio track (and no other file that has one)",
    "silent": "no sound in the track, and --drop_silent was asked",
    "no_video": "no video track",
    "few_frames": "fewer frames decode than a sample needs",
    "bad_values": "the decoded values are not finite",
    "decoder_crash": "the decoder crashed or hung on this file",
    "unknown_name": "the name fits no file of this data set",
    "missing_file": "a list names the file, and it is not there",
    "no_label": "neither a list nor the folder tells its class",
    "label_conflict": "list and folder tell different classes: the list was taken",
    "duplicate": "the same id stands elsewhere: the first was taken",
}
# Findings that are written to rejected.csv although the sample itself is kept.
KEPT_REASONS = ("label_conflict",)


class Reject(Exception):
    """A file that cannot become a sample; `reason` is a key of `REASONS`."""

    def __init__(self, reason: str, detail: str = ""):
        assert reason in REASONS, reason
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail
