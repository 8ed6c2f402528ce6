"""What each dataset stores and how the model sees it, depending on its settings."""

import pytest

from data_prep import datasets
from data_prep.spec import spec_hash

# dataset, settings -> attributes of its modalities
SPECS = [
    ("cremad", {}, {"audio.shape": (128, 1024), "audio.missing": "fill", "video.missing": "fill",
                    "video.fps": 2.0, "video.max_frames": 20, "video.min_frames": 3,
                    "video.choice": "cremad", "video.augment": "crop_flip_apart",
                    "audio.normalise": (-4.503877, 10.282552), "video.normalise": "imagenet"}),
    ("cremad", {"audio_feature": "stft", "keep_all": False, "crop": "clip"},
     {"audio.shape": (257, 188), "audio.normalise": "none", "audio.missing": "reject",
      "video.missing": "reject", "video.augment": "crop_flip"}),
    ("kinetics", {}, {"audio.shape": (128, 1024), "audio.window": None, "video.choice": "segments",
                      "audio.normalise": (-4.503877, 10.282552), "audio.missing": "reject"}),
    ("kinetics", {"audio_feature": "stft", "allow_missing": True, "drop_silent": True,
                  "frame_choice": "release", "crop": "none"},
     {"audio.shape": (129, 1251), "audio.window": 626, "audio.normalise": "none",
      "audio.missing": "fill", "audio.drop_silent": True, "video.missing": "reject",
      "video.choice": "kinetics", "video.augment": "none"}),
    ("ave", {}, {"audio.shape": (129, 1251), "audio.window": 626, "audio.normalise": "none",
                 "video.fps": 1.0, "video.max_frames": 10}),
    ("vggsound", {}, {"audio.shape": (129, 1251), "audio.window": 626, "video.max_frames": 10}),
    ("vggsound", {"audio_feature": "fbank"}, {"audio.shape": (128, 1024), "video.fps": 1.0}),
    ("ucf101", {}, {"flow.algorithm": "dis", "flow.positions": 10, "flow.stack": 1,
                    "flow.bound": 20.0, "video.positions": 10, "flow.augment": "flip",
                    "flow.normalise": ([0.1307], [0.3081]), "video.augment": "flip"}),
    ("ucf101", {"flow_positions": 7, "flow_stack": 10, "flow_algo": "tvl1", "crop": "rrc",
                "flow_norm": "center", "frame_choice": "release", "flip": "apart"},
     {"flow.positions": 7, "flow.stack": 10, "video.positions": 7, "video.min_decoded": 4,
      "flow.augment": "crop_flip_apart", "flow.normalise": ([0.5], [0.5]),
      "flow.choice": "ucf101_flow", "video.choice": "ucf101"}),
    ("ucf101", {"rgb_frames": "first6", "flow_norm": "none"},
     {"video.first": 6, "video.max_frames": 6, "video.min_decoded": 6, "flow.normalise": "none"}),
    ("food101", {"vocabulary": "build"}, {"text.max_tokens": 512, "text.cleaning": "release",
                                          "image.short_side": 256, "image.missing": "reject",
                                          "image.augment": "rotate_flip"}),
    ("sarcasm", {"vocabulary": "build"}, {"image.missing": "reject", "text.pair": False}),
    ("mvsa", {"vocabulary": "build"}, {"image.missing": "reject", "text.pair": False}),
    ("twitter2015", {"vocabulary": "build"}, {"image.missing": "fill", "text.pair": True}),
    ("twitter2015", {"vocabulary": "build", "drop_missing": True}, {"image.missing": "reject"}),
    ("mosi", {}, {"text.max_length": 50, "video.max_length": 50, "audio.clean": True,
                  "text.clean": False, "text.normalise": "none", "audio.normalise": "train"}),
    ("mosi", {"feature_files": "mult_unaligned", "standardise": False},
     {"text.max_length": 50, "video.max_length": 500, "video.normalise": "none"}),
    ("mosei", {"feature_files": "mult_aligned"},
     {"video.max_length": 50, "audio.clean": True, "audio.origin": "mult_aligned neg_nonneg"}),
    ("iemocap", {"feature_files": "mult_unaligned", "standardise": False},
     {"text.max_length": 50, "audio.max_length": 500, "audio.normalise": "none"}),
    ("iemocap", {"feature_files": "dialogues"}, {"audio.max_length": 1, "video.clean": True}),
    ("demo", {}, {"audio.shape": (129, 31), "video.square": 32, "video.normalise": "train"}),
]  # fmt: skip


@pytest.mark.parametrize(("dataset", "settings", "due"), SPECS)
def test_what_is_stored_and_how_the_model_sees_it_follows_the_settings(dataset, settings, due):
    layout = datasets.load(dataset)
    spec = layout.spec(layout.Settings(**settings))
    found = {name: getattr(spec[name.split(".")[0]], name.split(".")[1]) for name in due}
    assert found == {k: pytest.approx(v) if "audio.norm" in k else v for k, v in due.items()}


def test_settings_that_change_stored_samples_change_the_folder_and_views_do_not():
    def hashed(**settings):
        layout = datasets.load("ucf101")
        return spec_hash("ucf101", layout.spec(layout.Settings(**settings)))

    changes = ({"flow_algo": "farneback"}, {"flow_stack": 2}, {"flow_positions": 9})
    assert len({hashed(), *(hashed(**change) for change in changes)}) == 4
    assert hashed() == hashed(crop="rrc", flow_norm="center")


# dataset -> some of its class names by their ids
CLASSES = {
    "ave": {2: "Baby cry, infant cry", 27: "Violin, fiddle"},
    "vggsound": {44: "child speech, kid speaking", 308: "zebra braying"},
    "kinetics": {12: "playing guitar", 30: "tickling"},
    "food101": {0: "apple_pie", 100: "waffles"},
    "ucf101": {34: "Hammering", 35: "HammerThrow", 100: "YoYo"},
}


@pytest.mark.parametrize("dataset", CLASSES)
def test_classes_are_numbered_in_alphabetical_order(dataset):
    labels = datasets.load(dataset).LABELS
    assert (
        list(labels) == sorted(labels, key=str.casefold)
        and len(labels) == max(CLASSES[dataset]) + 1
    )
    assert {k: labels[k] for k in CLASSES[dataset]} == CLASSES[dataset]
    assert len(labels) == max(CLASSES[dataset]) + 1
