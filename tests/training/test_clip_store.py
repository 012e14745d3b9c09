"""A clip is what was written, never crosses a border, and labels stay apart."""

import concurrent.futures
import json
import pickle

import numpy as np
import pytest

from training.data import clip_store
from training.data.clip_store import (
    CUT,
    DEATH,
    SUCCESS,
    ClipLabels,
    ClipStore,
    ClipWriter,
    EndsOften,
    StoreFullError,
    load_labels,
)

SIZE = 8


def frames_of(segment, length, size=SIZE):
    """Frames that tell by their pixels which segment and time they are of."""
    frames = np.zeros((length, size, size, 3), np.uint8)
    frames[..., 0] = segment
    frames[..., 1] = np.arange(length)[:, None, None]
    frames[..., 2] = np.arange(size)[:, None]
    return frames


def labels_of(segment, length):
    return {
        "actions": np.arange(length) % 15,
        "rewards": np.full(length, segment / 2),
        "level_seeds": np.full(length, 100 + segment),
    }


def write_store(folder, shards, size=SIZE, labels=False, **meta):
    clip_store.write_meta(folder, frame_size=size, **meta)
    number = 0
    for shard, lengths in enumerate(shards):
        with ClipWriter(folder, shard, size) as writer:
            for length in lengths:
                columns = labels_of(number, length) if labels else None
                writer.add(frames_of(number, length, size), columns, DEATH)
                number += 1
    return folder


def test_every_clip_is_unbroken_and_every_start_is_there(tmp_path):
    lengths = [[5, 4, 3, 9], [1, 4], [2, 2, 7]]
    store = ClipStore(write_store(tmp_path, lengths), clip_frames=4)
    flat = [length for shard in lengths for length in shard]
    expected = [(s, t) for s, length in enumerate(flat) for t in range(length - 3)]
    assert len(store) == len(expected)
    assert store.num_frames == sum(flat)
    clips_BTHWC = store.clips(range(len(store)))
    assert clips_BTHWC.shape == (len(expected), 4, SIZE, SIZE, 3)
    for index, (segment, time) in enumerate(expected):
        want = frames_of(segment, flat[segment])[time : time + 4]
        np.testing.assert_array_equal(store.clip(index), want)
        np.testing.assert_array_equal(clips_BTHWC[index], want)
    np.testing.assert_array_equal(store.clip(-1), store.clip(len(store) - 1))
    assert store.clips([]).shape == (0, 4, SIZE, SIZE, 3)


def test_clips_are_copies_that_may_be_written_to(tmp_path):
    store = ClipStore(write_store(tmp_path, [[6]]), clip_frames=2)
    store.clip(0)[:] = 255
    np.testing.assert_array_equal(store.clip(0), frames_of(0, 6)[:2])


def test_several_stores_read_as_one(tmp_path):
    a = write_store(tmp_path / "a", [[4, 5]], fps=5.0, frame_skip=3, look="plain")
    b = write_store(tmp_path / "b", [[6]])
    both = ClipStore([a, b], clip_frames=4)
    one, two = ClipStore(a, clip_frames=4), ClipStore(b, clip_frames=4)
    assert len(both) == len(one) + len(two) and both.num_frames == 15
    alone = np.concatenate([one.clips(range(len(one))), two.clips(range(len(two)))])
    np.testing.assert_array_equal(both.clips(range(len(both))), alone)
    assert both.meta["frame_skip"] == 3 and both.meta["look"] == "plain"


def test_the_ends_of_segments_may_be_drawn_more_often(tmp_path):
    lengths = [[5, 4, 3, 9], [1, 14]]
    store = ClipStore(write_store(tmp_path, lengths), clip_frames=4)
    whole = [frames_of(number, length) for number, length in enumerate((5, 4, 3, 9, 1, 14))]
    last = [frames[-4:] for frames in whole if len(frames) >= 4]
    np.testing.assert_array_equal(store.clips(store.last_clips()), np.stack(last))
    often = EndsOften(store, 0.5)
    assert len(often) == 2 * len(store)
    every = np.arange(len(store))
    np.testing.assert_array_equal(often.batch(every)[0], store.clips(every))
    ends = often.batch(len(store) + every)[0]
    np.testing.assert_array_equal(ends, np.stack([last[i % len(last)] for i in every]))
    assert len(EndsOften(store, 0.0)) == len(store)
    with pytest.raises(ValueError, match=r"share=1.0; accepted: 0 <= share < 1"):
        EndsOften(store, 1.0)


def test_pickled_and_threaded_reads_agree(tmp_path):
    store = ClipStore(write_store(tmp_path, [[40, 30], [50]]), clip_frames=4)
    data = pickle.dumps(store)
    assert len(data) < store.num_frames * SIZE * SIZE * 3 / 2  # paths, not pixels
    copy = pickle.loads(data)
    indices = np.random.default_rng(0).integers(len(store), size=400)
    expected = store.clips(indices)
    np.testing.assert_array_equal(copy.clips(indices), expected)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        got = list(pool.map(copy.clip, indices.tolist()))
    np.testing.assert_array_equal(np.stack(got), expected)


def test_labels_lie_beside_the_clips_and_the_store_does_without(tmp_path):
    write_store(tmp_path, [[6, 3], [5]], labels=True)
    store = ClipStore(tmp_path, clip_frames=4)
    labels = ClipLabels(store)
    indices = range(len(store))
    assert labels.actions(indices).shape == (len(store), 3)
    for index in indices:
        segment, first = store.clip(index)[0, 0, 0, :2]
        assert labels.actions([index])[0].tolist() == [first, first + 1, first + 2]
        assert (labels.rewards([index]) == segment / 2).all()
        assert (labels.level_seeds([index]) == 100 + segment).all()
    assert load_labels(tmp_path, 0).outcomes.tolist() == [DEATH, DEATH]

    # A store whose labels are garbage, or gone, reads all the same: it never opens them.
    before = store.clips(indices)
    for path in tmp_path.glob("labels-*"):
        path.write_bytes(b"not labels")
    np.testing.assert_array_equal(ClipStore(tmp_path, clip_frames=4).clips(indices), before)
    for path in tmp_path.glob("labels-*"):
        path.unlink()
    np.testing.assert_array_equal(ClipStore(tmp_path, clip_frames=4).clips(indices), before)
    with pytest.raises(FileNotFoundError, match="labels-00000.npz is not there.*without labels"):
        ClipLabels(store)


def test_labels_written_are_those_given_even_if_the_caller_reuses_arrays(tmp_path):
    clip_store.write_meta(tmp_path, frame_size=SIZE)
    columns = labels_of(0, 5)
    with ClipWriter(tmp_path, 0, SIZE) as writer:
        writer.add(frames_of(0, 5), columns, SUCCESS)
        for column in columns.values():
            column[:] = 1
        writer.add(frames_of(1, 5), columns, CUT)
    labels = load_labels(tmp_path, 0)
    assert labels.actions.tolist() == [0, 1, 2, 3, 4] + [1] * 5
    assert labels.outcomes.tolist() == [SUCCESS, CUT]


def test_a_killed_writer_loses_only_its_own_shard(tmp_path):
    write_store(tmp_path, [[6], [5]])
    writer = ClipWriter(tmp_path, 2, SIZE)
    writer.add(frames_of(9, 7))  # and then the process is killed: no commit, no clean-up
    assert clip_store.list_shards(tmp_path) == [0, 1]
    store = ClipStore(tmp_path, clip_frames=4)
    assert store.num_frames == 11

    with ClipWriter(tmp_path, 2, SIZE) as again:
        again.add(frames_of(2, 4))
    assert ClipStore(tmp_path, clip_frames=4).num_frames == 15
    assert not list(tmp_path.glob("*.tmp"))


def test_an_error_while_writing_leaves_no_trace(tmp_path):
    write_store(tmp_path, [[6]])
    files = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt), ClipWriter(tmp_path, 1, SIZE) as writer:
        writer.add(frames_of(1, 4))
        raise KeyboardInterrupt
    assert sorted(tmp_path.iterdir()) == files


def test_a_stream_that_fails_leaves_the_shard_as_it_was(tmp_path):
    def stream():
        yield frames_of(7, 3)
        raise RuntimeError("broken source")

    clip_store.write_meta(tmp_path, frame_size=SIZE)
    with ClipWriter(tmp_path, 0, SIZE) as writer:
        writer.add_stream([frames_of(0, 5)])
        with pytest.raises(RuntimeError, match="broken source"):
            writer.add_stream(stream())
        assert writer.add_stream([frames_of(1, 4)[:1], frames_of(1, 4)[1:]]) == 4
    store = ClipStore(tmp_path, clip_frames=1)
    assert store.segments.tolist() == [[0, 0, 5], [0, 5, 4]]
    np.testing.assert_array_equal(store.segment(1), frames_of(1, 4))


@pytest.mark.skipif(not clip_store.Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_named_and_cleaned_up(tmp_path):
    """/dev/full refuses every byte with the error of a full disk."""
    write_store(tmp_path, [[6]])
    files = sorted(tmp_path.iterdir())
    (tmp_path / "frames-00001.npy.tmp").symlink_to("/dev/full")
    writer = ClipWriter(tmp_path, 1, SIZE, expected_frames=1000)
    with pytest.raises(StoreFullError) as raised, writer:
        for segment in range(200):
            writer.add(frames_of(segment, 5))
    message = str(raised.value)
    assert f"disk full while writing shard 1 of {tmp_path}" in message
    assert f"{1000 * SIZE * SIZE * 3 + 128:,} free bytes" in message
    assert sorted(tmp_path.iterdir()) == files
    assert ClipStore(tmp_path, clip_frames=4).num_frames == 6


def test_bad_stores_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not there"):
        ClipStore(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no meta.json"):
        ClipStore(tmp_path)
    with pytest.raises(ValueError, match="at least one store"):
        ClipStore([])
    empty = tmp_path / "empty"
    clip_store.write_meta(empty, frame_size=SIZE)
    with pytest.raises(FileNotFoundError, match="empty has no complete shard"):
        ClipStore(empty)

    store = write_store(tmp_path / "store", [[6, 5]])
    with pytest.raises(ValueError, match="the 16 frames of a clip: the longest of 2 has 6"):
        ClipStore(store)
    with pytest.raises(ValueError, match="clip_frames must be >= 1, got 0"):
        ClipStore(store, clip_frames=0)
    with pytest.raises(IndexError, match="clip 3 of a store with 3 clips"):
        ClipStore(store, clip_frames=5).clip(3)

    larger = write_store(tmp_path / "larger", [[6]], size=12)
    with pytest.raises(ValueError, match="share one frame_size.*has 8.*has 12"):
        ClipStore([store, larger], clip_frames=4)

    meta = json.loads((store / "meta.json").read_text())
    (store / "meta.json").write_text(json.dumps({**meta, "version": 99}))
    with pytest.raises(ValueError, match=r"\('genie-clip-store', 99\).*reads.*1\)"):
        ClipStore(store, clip_frames=4)
    (store / "meta.json").write_text("{")
    with pytest.raises(ValueError, match="meta.json is damaged"):
        ClipStore(store, clip_frames=4)


def test_damaged_shards_are_named(tmp_path):
    store = write_store(tmp_path, [[6]])
    segments = clip_store.segments_path(store, 0)
    np.save(segments, np.array([[0, 7]]))
    with pytest.raises(ValueError, match="segments-00000.npy points outside.*6 frames"):
        ClipStore(store, clip_frames=4)
    segments.unlink()
    with pytest.raises(ValueError, match="no segments for shard 0"):
        ClipStore(store, clip_frames=4)
    frames = clip_store.frames_path(store, 0)
    whole = frames.read_bytes()
    for damage in (whole[: len(whole) // 2], b"", b"junk" * 50):
        frames.write_bytes(damage)
        with pytest.raises(ValueError, match="frames-00000.npy is damaged"):
            ClipStore(store, clip_frames=4)


def test_bad_segments_are_refused(tmp_path):
    clip_store.write_meta(tmp_path, frame_size=SIZE)
    with ClipWriter(tmp_path, 0, SIZE) as writer:
        for bad in (
            frames_of(0, 4, size=12),
            frames_of(0, 4).astype(np.float32),
            frames_of(0, 4)[0],
            [1, 2],
        ):
            with pytest.raises(ValueError, match=r"frames must be a uint8 array \(T, 8, 8, 3\)"):
                writer.add(bad)
        with pytest.raises(ValueError, match="at least one frame"):
            writer.add(frames_of(0, 4)[:0])
        with pytest.raises(ValueError, match=r"labels actions must be \(4,\), got \(3,\)"):
            writer.add(frames_of(0, 4), {**labels_of(0, 4), "actions": np.zeros(3)})
        writer.add(frames_of(0, 4), labels_of(0, 4))
        with pytest.raises(ValueError, match="either every segment"):
            writer.add(frames_of(1, 4))
    assert ClipStore(tmp_path, clip_frames=4).num_frames == 4
