"""Videos are read as phones mean them, however broken they are, and written so that they play."""

import os
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from conftest import ROOT

from lib.errors import UserError
from lib.video.io.source import VideoSource
from lib.video.io.writer import VideoWriter, write_gif

SAMPLE_RATE, TONE = 44_100, 440  # Hz
LEFT_RED_RIGHT_BLUE = ((200, 30, 40), (30, 40, 200))


def picture(number=0, width=64, height=48):
    """Left half red, right half blue; the upper third is grey, brighter with the number."""
    rgb = np.empty((height, width, 3), np.uint8)
    rgb[:, : width // 2], rgb[:, width // 2 :] = LEFT_RED_RIGHT_BLUE
    rgb[: height // 3] = 4 * number % 256
    return rgb


def make_video(
    path,
    count=60,
    times=None,
    width=64,
    height=48,
    codec="libx264",
    sound=None,
    turned=None,
    clock=600,
    noise=False,
    **how,
):
    """A file of `picture`s at 30 a second, or at `times` (s), with a tone if `sound` names a codec."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", **how) as container:
        video = container.add_stream(codec, rate=30)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.time_base = Fraction(1, clock)
        if turned is not None:
            video.set_display_rotation(turned)
        audio = container.add_stream(sound, rate=SAMPLE_RATE) if sound else None
        if audio:
            audio.codec_context.layout = "mono"
        for number in range(count):
            rgb = rng.integers(0, 255, (height, width, 3), np.uint8) if noise else picture(number, width, height)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            seconds = number / 30 if times is None else times[number]
            frame.pts, frame.time_base = round(seconds * clock), Fraction(1, clock)
            container.mux(video.encode(frame))
            if audio:
                samples = np.arange(number * SAMPLE_RATE // 30, (number + 1) * SAMPLE_RATE // 30)
                wave = 0.5 * np.sin(2 * np.pi * TONE / SAMPLE_RATE * samples)
                kind = audio.codec_context.format.name
                wave = (32767 * wave).astype(np.int16) if kind == "s16" else wave.astype(np.float32)
                tone = av.AudioFrame.from_ndarray(wave[None], format=kind, layout="mono")
                tone.sample_rate, tone.pts = SAMPLE_RATE, int(samples[0])
                container.mux(audio.encode(tone))
        container.mux(video.encode(None))
        if audio:
            container.mux(audio.encode(None))
    return path


def cut(path, share=0.6):
    """The first part of the file, as a new file."""
    shorter = path.with_name(f"cut_{path.name}")
    shorter.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return shorter


def read(source):
    frames = list(source)
    return [number for number, _, _ in frames], np.array([s for _, s, _ in frames]), [rgb for _, _, rgb in frames]


def test_a_file_is_read_from_its_first_frame_and_again(tmp_path):
    source = VideoSource(make_video(tmp_path / "a.mp4"))
    assert (source.name, source.width, source.height, source.scale) == ("a.mp4", 64, 48, 1.0)
    assert (source.fps, source.frames, source.has_audio) == (30, 60, False)
    for _ in range(2):
        numbers, times, pictures = read(source)
        assert numbers == list(range(60)) and source.damaged is None
        np.testing.assert_allclose(times, np.arange(60) / 30, atol=1e-6)
        for number in (0, 31, 59):
            assert pictures[number].flags.c_contiguous and pictures[number].dtype == np.uint8
            np.testing.assert_allclose(pictures[number][20:, :24], picture()[20:, :24], atol=12)
            assert abs(int(pictures[number][5, 10, 1]) - 4 * number) < 8


@pytest.mark.skipif(not hasattr(av.video.stream.VideoStream, "set_display_rotation"), reason="this PyAV cannot turn")
@pytest.mark.parametrize("turned", [90, 180, -90])
def test_a_phones_video_comes_upright(tmp_path, turned):
    upright = np.rot90(picture(), turned // 90)
    source = VideoSource(make_video(tmp_path / "phone.mp4", 10, turned=turned))
    assert (source.height, source.width) == upright.shape[:2]
    _, _, pictures = read(source)
    error = np.abs(pictures[0].astype(int) - upright)
    assert pictures[0].shape == upright.shape and np.percentile(error, 80) < 12


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_video_is_turned_clockwise_when_asked(tmp_path, turn):
    expected = np.rot90(picture(), -turn // 90)
    source = VideoSource(make_video(tmp_path / "a.mp4", 3), turn=turn)
    assert (source.height, source.width) == expected.shape[:2]
    found = read(source)[2][0]
    assert found.shape == expected.shape and found.flags.c_contiguous
    assert np.percentile(np.abs(found.astype(int) - expected), 80) < 12


def test_a_variable_frame_rate_is_kept_and_times_ascend(tmp_path):
    times = np.cumsum(np.random.default_rng(0).integers(5, 90, 50)) / 600
    numbers, read_times, _ = read(VideoSource(make_video(tmp_path / "phone.mp4", 50, times)))
    assert len(numbers) == 50
    np.testing.assert_allclose(read_times, times - times[0], atol=2e-3)
    assert (np.diff(read_times) > 0).all()


def test_frames_without_times_get_the_mean_rates(tmp_path):
    path = make_video(tmp_path / "raw.h264", 40, format="h264")
    _, times, _ = read(VideoSource(path))
    assert len(times) == 40 and (np.diff(times) > 0).all()
    assert times[-1] == pytest.approx(39 / VideoSource(path).fps, rel=0.2)


def test_a_large_video_is_handed_out_smaller(tmp_path):
    source = VideoSource(make_video(tmp_path / "4k.mp4", 3, width=3840, height=2160), max_side=1920)
    assert (source.width, source.height, source.scale) == (1920, 1080, 0.5)
    _, _, pictures = read(source)
    assert pictures[0].shape == (1080, 1920, 3)
    np.testing.assert_allclose(pictures[0][900, [200, 1700]], LEFT_RED_RIGHT_BLUE, atol=8)


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.avi", "a.mp4"])
def test_of_a_truncated_video_the_readable_part_is_handed_out(tmp_path, name):
    how = {"a.mp4": {"options": {"movflags": "faststart"}}, "a.avi": {"codec": "mpeg4", "clock": 30}}
    source = VideoSource(cut(make_video(tmp_path / name, 120, noise=True, **how.get(name, {}))))
    numbers, times, _ = read(source)
    assert 20 < len(numbers) < 120 and (np.diff(times) > 0).all()
    if name != "a.ts":  # a transport stream does not say how long it is
        assert source.damaged.startswith(f"ends after frame {numbers[-1]}: ")


def test_an_mp4_without_its_index_cannot_be_read(tmp_path):
    path = make_video(tmp_path / "a.mp4", noise=True)
    for share in (0.6, 0.998):
        with pytest.raises(UserError, match="cut_a.mp4: is cut off: .* index"):
            VideoSource(cut(path, share))


def test_files_that_are_no_video_are_refused_by_name(tmp_path):
    make_video(tmp_path / "dance.mp4", 5)
    (tmp_path / "text.mp4").write_text("no video\n" * 50)
    (tmp_path / "notes.txt").write_text("no video\n" * 50)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    mkv = make_video(tmp_path / "a.mkv", 5).read_bytes()
    (tmp_path / "odd.mkv").write_bytes(mkv.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG9/ISO/XYZ"))
    with av.open(str(tmp_path / "song.m4a"), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=SAMPLE_RATE)
        stream.codec_context.layout = "mono"
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 8192), np.float32), format="fltp", layout="mono")
        tone.sample_rate = SAMPLE_RATE
        container.mux(stream.encode(tone))
        container.mux(stream.encode(None))
    with av.open(str(tmp_path / "none.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    for name, message in {
        "danse.mp4": r"danse.mp4: no such file \(did you mean 'dance.mp4'\?\)",
        "": "is a folder, a file is needed",
        "text.mp4": "text.mp4: is text, not a video",
        "notes.txt": "notes.txt: is not a video",
        "empty.mp4": "empty.mp4: is empty",
        "noise.mp4": "noise.mp4: is not a video that can be read",
        "odd.mkv": "odd.mkv: its video codec is not known here; convert it: ffmpeg",
        "song.m4a": "song.m4a: has only sound",
        "none.avi": "none.avi: has no frame that can be decoded",
    }.items():
        with pytest.raises(UserError, match=message) as raised:
            VideoSource(tmp_path / name)
        assert "\n" not in str(raised.value)


@pytest.mark.skipif(os.path.exists("/dev/video63"), reason="there is such a camera")
def test_a_missing_camera_is_named(capfd):
    with pytest.raises(UserError, match="camera 63: there is none"):
        VideoSource("63")
    assert capfd.readouterr() == ("", "")


class FakeCamera:
    """Gives five blue pictures, as OpenCV does: blue first."""

    def __init__(self, index):
        self.left = 5

    def read(self):
        self.left -= 1
        return self.left >= 0, np.full((48, 64, 3), (255, 0, 0), np.uint8)

    def get(self, key):
        return 0.0

    def release(self):
        self.left = 0


def test_a_camera_is_read_until_it_stops_or_is_closed(monkeypatch):
    monkeypatch.setattr("cv2.VideoCapture", FakeCamera)
    source = VideoSource(0, max_side=32)
    assert (source.name, source.width, source.height, source.frames) == ("camera 0", 32, 24, None)
    numbers, times, pictures = read(source)
    assert numbers == [0, 1, 2, 3] and times[0] == 0 and (np.diff(times) > 0).all()  # the first went to look
    assert pictures[0].shape == (24, 32, 3) and (pictures[0] == (0, 0, 255)).all()
    with VideoSource("0") as source:
        frames = iter(source)
        next(frames)
    assert next(frames, None) is None


def test_pixels_that_are_not_square_are_made_so(tmp_path):
    with av.open(str(tmp_path / "dv.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 72, 48, "yuv420p"
        stream.codec_context.options = {"aud": "0", "x264-params": "sar=4/3"}
        for number in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number, 72, 48), format="rgb24")))
        container.mux(stream.encode(None))
    source = VideoSource(tmp_path / "dv.mp4")
    assert (source.width, source.height) == (96, 48)
    assert read(source)[2][0].shape == (48, 96, 3)


def test_what_is_written_is_read_back(tmp_path):
    times = np.cumsum([0, *np.random.default_rng(1).integers(1000, 9000, 49)]) / 60_000
    target = tmp_path / "new" / "out.mp4"
    with VideoWriter(target, 63, 47, 20.0) as writer:
        for number, seconds in enumerate(times):
            writer.write(picture(number)[:47, :63], seconds)
        assert not target.exists()
    assert [p.name for p in target.parent.iterdir()] == ["out.mp4"]
    source = VideoSource(target)
    numbers, read_times, pictures = read(source)
    assert (source.width, source.height, len(numbers), source.damaged) == (64, 48, 50, None)
    np.testing.assert_allclose(read_times, times, atol=1 / 60_000)
    np.testing.assert_allclose(pictures[7][40, [10, 50]], LEFT_RED_RIGHT_BLUE, atol=8)
    content = target.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # plays while it loads


def test_without_x264_mpeg4_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    with VideoWriter(tmp_path / "out.mp4", 64, 48, 30) as writer:
        for number in range(20):
            writer.write(picture(number), number / 30)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    assert len(read(VideoSource(tmp_path / "out.mp4"))[0]) == 20


@pytest.mark.parametrize(
    "name, codec, copied",
    [("a.mp4", "aac", True), ("a.ts", "aac", True), ("a.mkv", "pcm_s16le", False), ("a.avi", "pcm_s16le", False)],
)
def test_sound_is_kept(tmp_path, name, codec, copied):
    source = make_video(tmp_path / name, 60, sound=codec, clock=30)
    assert VideoSource(source).has_audio
    with VideoWriter(tmp_path / "out.mp4", 64, 48, 30, audio_from=source) as writer:
        for number in range(45):  # shorter than the sound
            writer.write(picture(number), number / 30)
    with av.open(str(tmp_path / "out.mp4")) as container:
        audio = container.streams.audio[0]
        assert audio.codec_context.name == "aac"
        assert (audio.codec_context.sample_rate == SAMPLE_RATE) == copied
        wave = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        rate = audio.codec_context.sample_rate
    assert 1.4 < len(wave) / rate < 1.7
    second = wave[rate // 10 : rate // 10 + rate]
    assert abs(np.abs(np.fft.rfft(second)).argmax() - TONE) <= 1
    assert second.std() * 2**0.5 == pytest.approx(0.5, abs=0.05)


def test_a_source_without_sound_gives_a_silent_video(tmp_path):
    source = make_video(tmp_path / "a.mp4", 5)
    with VideoWriter(tmp_path / "out.mp4", 64, 48, 30, audio_from=source) as writer:
        writer.write(picture(), 0.0)
    assert not VideoSource(tmp_path / "out.mp4").has_audio


@pytest.mark.parametrize("keep", [False, True])
def test_an_interrupt_keeps_what_was_there(tmp_path, keep):
    target = tmp_path / "out.mp4"
    target.write_text("before")
    with pytest.raises(KeyboardInterrupt), VideoWriter(target, 64, 48, 30, keep_partial=keep) as writer:
        for number in range(25):
            writer.write(picture(number), number / 30)
        raise KeyboardInterrupt
    assert target.read_text() == "before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.mp4", "out.partial.mp4"][: 1 + keep]
    if keep:
        assert len(read(VideoSource(writer.partial))[0]) == 25


def test_what_cannot_be_written_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(UserError, match="out.mp4: cannot be written"), VideoWriter(blocked / "out.mp4", 64, 48, 30):
        pass
    with pytest.raises(UserError, match="out.gif: cannot be written"):
        write_gif([(picture(), 0.0)], blocked / "out.gif")
    with pytest.raises(UserError, match="no picture to write"), VideoWriter(tmp_path / "out.mp4", 64, 48, 30):
        pass
    with pytest.raises(UserError, match="no picture to write"):
        write_gif([], tmp_path / "out.gif")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import numpy as np
from lib.errors import UserError
from lib.video.io.writer import VideoWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
rng = np.random.default_rng(0)
try:
    with VideoWriter(sys.argv[1], 320, 240, 30) as writer:
        for number in range(200):
            writer.write(rng.integers(0, 255, (240, 320, 3), np.uint8), number / 30)
except UserError as error:
    print(error)
"""


def run(program, *arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)


def test_a_full_disk_is_named(tmp_path):
    assert "out.mp4: cannot be written (File too large)" in run(FULL_DISK, tmp_path / "out.mp4").stdout
    assert not list(tmp_path.iterdir())


MEMORY = """
import resource, sys
from lib.video.io.source import VideoSource
from lib.video.io.writer import VideoWriter, write_gif
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
source = VideoSource(sys.argv[1])
def frames(writer):
    for number, seconds, rgb in source:
        if number == 600:
            frames.before = peak()
        writer.write(rgb, seconds)
        yield rgb, seconds
with VideoWriter(sys.argv[2] + "/out.mp4", source.width, source.height, source.fps) as writer:
    write_gif(frames(writer), sys.argv[2] + "/out.gif", most=30)
print(peak() - frames.before)
"""


def test_memory_does_not_grow_with_the_length(tmp_path):
    count, width, height = 4000, 160, 120  # 230 MB of pictures
    path = make_video(tmp_path / "long.mp4", count, width=width, height=height, codec="mpeg4")
    grown = float(run(MEMORY, path, tmp_path).stdout)
    assert len(read(VideoSource(tmp_path / "out.gif"))[0]) <= 30
    assert VideoSource(tmp_path / "out.mp4").frames == count
    assert grown < 25  # MB


def test_a_gif_keeps_time_and_colours(tmp_path):
    target = tmp_path / "out.gif"
    frames = [(picture(n, 320, 240), n / 30) for n in range(60)]
    assert write_gif(frames, target, fps=10, width=160) == 0.1
    source = VideoSource(target)
    _, times, pictures = read(source)
    assert (source.width, source.height) == (160, 120)
    np.testing.assert_allclose(times, np.arange(20) / 10, atol=0.02)
    np.testing.assert_allclose(pictures[3][100, [20, 140]], LEFT_RED_RIGHT_BLUE, atol=12)
    assert write_gif(frames, target, fps=10, width=160, most=7) == 0.4
    np.testing.assert_allclose(read(VideoSource(target))[1], np.arange(5) * 0.4, atol=0.02)
