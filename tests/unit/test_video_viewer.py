"""The viewer page in a real browser, opened from disk without network."""

import base64
import shutil
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT

from lib.errors import UserError
from lib.video.poses import Person, Poses
from lib.video.show import viewer
from lib.video.show.viewer import write_viewer

SAMPLE = ROOT / "demo" / "video" / "sample_video.mp4"  # 640 x 360, 230 frames, 30 fps
FPS = 30
DARK, TEAL = "#3b4656", "#0f766e"  # tones of persons 1 and 2


def make_poses(source="sample_video.mp4", people=2, frames=230, size=(640, 360)):
    """Up to two people of the shipped motion capture before a level camera: 1 in all frames, 2 in frames 60 to 199
    but for a gap (120 to 139), with a bridged run (160 to 179)."""
    with np.load(ROOT / "data" / "cmu17_large.npz") as motion:
        names, start = motion["name"].tolist(), motion["start"]
        clips = [slice(*start[names.index(name) :][:2]) for name in ("cmu_01_05", "cmu_02_09")]
        worlds = [(motion["root"][c, None] + motion["joints"][c].astype(float))[::2] * 1e-4 for c in clips]
    width, height = size
    rotation = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    shift, focal = np.array([0, -6.0, 1.3]), 0.9 * max(size)
    rows = [np.arange(frames), np.r_[60:120, 140:200]]
    tracks = []
    for index, (world, frames_seen, aside) in enumerate(zip(worlds[:people], rows, (-0.8, 0.9))):
        world = world[: len(frames_seen)]
        world = world - [*world[:, 0, :2].mean(0), world[..., 2].min()] + [aside, 0, 0]
        camera = (world - shift) @ rotation
        pixels = camera[..., :2] / camera[..., 2:] * focal + np.array(size) / 2
        confidence = np.full((*pixels.shape[:2], 1), 0.9)
        tracks.append(
            Person(
                id=index + 1,
                frames=frames_seen,
                keypoints=np.concatenate([pixels, confidence], -1).astype(np.float32),
                bridged=(index == 1) & (frames_seen >= 160) & (frames_seen < 180),
                camera=camera.astype(np.float32),
                world=world.astype(np.float32),
            )
        )
    return Poses(source, np.arange(frames) / FPS, width, height, focal, rotation, shift, tracks)


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives a browser")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("needs chromium (apt-get install chromium)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, tmp_path):
    """Opens the page of some poses; at the end there must have been no error and no request but for files."""
    contexts, errors, requests = [], [], []

    def open_page(poses, preview=None, width=1280, height=800, **options):
        path = tmp_path / "viewer.html"
        write_viewer(poses, path, preview)
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        contexts[-1].set_offline(True)
        page = contexts[-1].new_page()
        page.on("console", lambda message: errors.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        settle(page)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not errors
    assert requests and all(url.startswith(("file:", "data:", "blob:")) for url in requests), requests


def settle(page):
    """Waits until the camera stands still."""
    page.wait_for_function("() => !drawing && settled()")


def pixels(page, canvas="view"):
    """Red, green, blue, alpha of a canvas, (h, w, 4)."""
    settle(page)
    width, height, text = page.evaluate(
        """id => {
            const canvas = document.getElementById(id);
            const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {willReadFrequently: true});
            copy.drawImage(canvas, 0, 0);
            const {data} = copy.getImageData(0, 0, canvas.width, canvas.height);
            let text = "";
            for (let i = 0; i < data.length; i += 8192) text += String.fromCharCode(...data.subarray(i, i + 8192));
            return [canvas.width, canvas.height, btoa(text)];
        }""",
        canvas,
    )
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)


def count(page, colour, canvas="view"):
    """Pixels of a canvas that have just this colour, "#rrggbb"."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((pixels(page, canvas)[..., :3] == rgb).all(-1).sum())


def frame(page):
    return page.evaluate("frame")


def test_shows_the_people_and_plays_with_the_video(open_page):
    page = open_page(make_poses(), SAMPLE)
    assert page.locator("#list li").count() == 2
    assert page.locator("#position").text_content() == "frame 0 / 229, 0:00.00"
    assert "2 people" in page.locator("#summary").text_content()
    before = pixels(page)
    page.get_by_label("Play", exact=True).click()
    page.wait_for_function("frame >= 20")
    page.get_by_label("Pause").click()
    settle(page)
    shown = frame(page)
    assert page.locator("#position").text_content() == f"frame {shown} / 229, 0:{shown / FPS:05.2f}"
    assert int(page.locator("#slider").input_value()) == shown
    assert shown <= page.evaluate("film.currentTime") * FPS < shown + 1  # the video stands at the same frame
    assert (pixels(page) != before).any()


@pytest.mark.parametrize("told", [True, False], ids=["browser says what it shows", "browser does not say"])
def test_playing_shows_the_frame_of_the_video(open_page, told):
    page = open_page(make_poses(), SAMPLE)
    if not told:
        page.evaluate("delete HTMLVideoElement.prototype.requestVideoFrameCallback")
    page.get_by_label("Speed").select_option("0.5")
    ahead = page.evaluate("""async () => {
        togglePlay();
        const ahead = [];
        while (frame < 30) {
            await new Promise(requestAnimationFrame);
            if (frame > 5) ahead.push(frame - Math.floor(film.currentTime * 30));
        }
        return ahead;
    }""")
    assert len(ahead) > 5
    assert abs(np.median(ahead)) <= 1


def test_playback_ends_at_the_last_frame_and_starts_over(open_page):
    page = open_page(make_poses(), SAMPLE)
    for _ in range(4):  # keys come while the video is still on its way to where the ones before sent it
        page.keyboard.press("End")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        assert frame(page) == 227
        page.keyboard.press("Space")
        page.wait_for_function("!playing")
        assert frame(page) == 229
        page.keyboard.press("Space")
        page.wait_for_function("playing && frame > 0 && frame < 100")
        page.keyboard.press("Space")


@pytest.mark.parametrize("preview", [SAMPLE, None], ids=["video", "no video"])
def test_keys_and_speed(open_page, preview):
    page = open_page(make_poses(), preview)
    page.get_by_label("Speed").select_option("0.25")
    page.locator("h1").click()
    page.get_by_label("Play", exact=True).click()  # by mouse: the space key still is play and pause, once
    page.wait_for_function("frame >= 3")
    page.keyboard.press("Space")
    assert not page.evaluate("playing")
    stopped = frame(page)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    assert frame(page) == stopped + 31
    page.keyboard.press("Home")
    assert frame(page) == 0
    page.get_by_label("Time").focus()
    page.keyboard.press("Space")
    page.wait_for_function("frame >= 5")  # 5 frames at a quarter of 30 frames/s: 0.67 s
    page.keyboard.press("Space")
    assert not page.evaluate("playing")


def test_plays_at_the_speed_of_the_video_without_one(open_page):
    page = open_page(make_poses())
    rate = page.evaluate("""async () => {
        togglePlay();
        const wait = () => new Promise(requestAnimationFrame);
        while (frame < 10) await wait();
        const [start, first] = [performance.now(), frame];
        while (frame < 70) await wait();
        return (frame - first) / (performance.now() - start) * 1e3;
    }""")
    assert rate == pytest.approx(FPS, rel=0.15)


def test_slider_seeks_and_the_video_follows(open_page):
    page = open_page(make_poses(), SAMPLE)
    before = pixels(page)
    page.locator("#slider").fill("150")
    settle(page)
    assert page.locator("#position").text_content().startswith("frame 150 /")
    assert 150 <= page.evaluate("film.currentTime") * FPS < 151
    assert (pixels(page) != before).any()


def test_shows_the_given_positions(open_page):
    poses = make_poses()
    page = open_page(poses)
    for person in poses.people:
        row = len(person.frames) - 1
        read = page.evaluate(
            "([p, row]) => Array.from({length: 17}, (_, joint) => jointAt(people[p], row, joint))", [person.id - 1, row]
        )
        np.testing.assert_allclose(read, person.world[row], atol=1e-4)
        assert page.evaluate("p => [...people[p].frames]", person.id - 1) == person.frames.tolist()
        assert page.evaluate("p => [...people[p].bridged]", person.id - 1) == person.bridged.tolist()


def test_left_is_drawn_at_the_left_hand_side_of_the_picture_that_shows_it_there(open_page):
    poses = make_poses(people=1)
    page = open_page(poses)
    pixel_x = poses.people[0].keypoints[:, :, 0]
    leftward = pixel_x[:, [1, 2, 3]].mean(1) - pixel_x[:, [4, 5, 6]].mean(1)  # of the left leg from the right, px
    number = int(abs(leftward).argmax())
    page.locator("#slider").fill(str(number))
    for canvas in ("view", "overlay"):
        seen = pixels(page, canvas)[..., :3].astype(int)
        columns = {}
        for side, colour in (("left", (209, 73, 91)), ("right", (43, 108, 176))):
            columns[side] = np.median(np.nonzero((abs(seen - colour) < 6).all(-1))[1])
        assert (columns["left"] < columns["right"]) == (leftward[number] > 0)


def test_drag_turns_wheel_zooms_double_click_resets(open_page):
    page = open_page(make_poses())
    start = pixels(page)
    page.mouse.move(900, 400)
    page.mouse.down()
    page.mouse.move(1000, 430, steps=4)
    page.mouse.up()
    turned = pixels(page)
    assert (turned != start).any()
    page.mouse.move(1100, 300)  # not held: nothing turns
    assert (pixels(page) == turned).all()
    page.mouse.wheel(0, -300)
    page.wait_for_function("view.zoom < 0.9")
    assert (pixels(page) != turned).any()
    page.mouse.dblclick(900, 400)
    page.wait_for_function("view.zoom === 1")
    assert (pixels(page) == start).all()


def test_touch_turns_and_pinches(open_page):
    page = open_page(make_poses(), has_touch=True)
    touch = page.context.new_cdp_session(page)

    def send(kind, *places):
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    yaw = page.evaluate("view.yaw")
    send("touchStart", (900, 400))
    send("touchMove", (980, 400))
    send("touchEnd")
    page.wait_for_function("yaw => view.yaw > yaw + 0.2", arg=yaw)
    send("touchStart", (900, 400), (950, 400))
    send("touchMove", (850, 400), (1000, 400))
    send("touchEnd")
    page.wait_for_function("view.zoom < 0.6")


def test_a_hidden_person_is_not_drawn(open_page):
    page = open_page(make_poses())
    page.locator("#slider").fill("100")
    for canvas in ("view", "overlay"):
        assert count(page, TEAL, canvas) > 20 and count(page, DARK, canvas) > 20
    page.get_by_label("Show person 2").uncheck()
    for canvas in ("view", "overlay"):
        assert count(page, TEAL, canvas) == 0 and count(page, DARK, canvas) > 20
    page.get_by_label("Show person 1").uncheck()
    assert count(page, DARK) == 0
    page.get_by_label("Show person 2").check()
    assert count(page, TEAL) > 20


def test_a_person_out_of_view_is_grey_in_the_list_and_a_bridged_one_faint(open_page):
    page = open_page(make_poses())
    entry = page.locator("#list li").nth(1)
    away, there, gap, bridged = 0, 100, 130, 170
    for number, listed, drawn in ((away, False, False), (there, True, True), (gap, False, False)):
        page.locator("#slider").fill(str(number))
        assert (count(page, TEAL) > 20) == drawn
        assert ("away" in entry.get_attribute("class")) != listed
    page.locator("#slider").fill(str(bridged))
    assert count(page, TEAL) == 0 and count(page, DARK) > 20  # mixed with what is behind; the other is not
    assert "away" not in entry.get_attribute("class")
    page.get_by_label("Focus camera on person 2").click()
    faint = pixels(page)
    page.get_by_label("Show person 2").uncheck()
    assert (pixels(page) != faint).any()  # the camera stays, so something was there


def test_the_camera_follows_a_person(open_page):
    page = open_page(make_poses())
    page.locator("#slider").fill("100")
    whole = pixels(page)
    button = page.get_by_label("Focus camera on person 2")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    columns = np.nonzero((pixels(page)[..., :3] == [15, 118, 110]).all(-1))[1]
    assert abs(np.median(columns) / pixels(page).shape[1] - 0.5) < 0.1
    page.get_by_role("button", name="Whole scene").click()
    assert (pixels(page) == whole).all()
    page.locator("#slider").fill("10")  # person 2 is not there yet: the camera goes to where they will appear
    button.click()
    settle(page)
    np.testing.assert_allclose(page.evaluate("view.target"), make_poses().people[1].world[0, 0], atol=0.01)


def test_overlay_can_be_switched_off(open_page):
    page = open_page(make_poses(), SAMPLE)
    assert pixels(page, "overlay")[..., 3].any()
    page.get_by_label("2D keypoints", exact=True).uncheck()
    assert not pixels(page, "overlay")[..., 3].any()


def test_a_name_with_markup_is_shown_as_it_is(open_page):
    name = """</script>"'<b>&amp; {{data}} {{style}} \u00fc\u2028.mp4"""
    page = open_page(make_poses(name), SAMPLE)
    assert page.locator("h1").text_content() == name
    assert (
        page.title().replace(" ", "") == name.replace(" ", "").replace("\u2028", "") or name.split()[0] in page.title()
    )
    assert page.evaluate("header.source") == name
    assert page.locator("#list li").count() == 2


def test_no_people(open_page):
    page = open_page(make_poses(people=0), SAMPLE)
    assert page.get_by_text("No people were found in this video.").is_visible()
    assert not page.locator("#people").is_visible()
    page.keyboard.press("Space")
    page.wait_for_function("frame >= 5")


def test_one_frame(open_page):
    page = open_page(make_poses(frames=1, people=1))
    assert page.locator("#position").text_content() == "frame 0 / 0, 0:00.00"
    assert page.get_by_label("Play", exact=True).is_disabled()
    page.keyboard.press("Space")
    assert not page.evaluate("playing")
    assert count(page, DARK) > 20


@pytest.mark.parametrize("size", [(360, 640), (640, 360)], ids=["portrait", "landscape"])
@pytest.mark.parametrize("width", [400, 700, 1000, 1600])
def test_everything_fits_the_width(open_page, size, width):
    page = open_page(make_poses("a_very_long_name_without_spaces" * 6 + ".mp4", size=size), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = [page.locator(s).bounding_box() for s in ("#picture", "#space", "#people", "footer", "#speed", "#slider")]
    for box in boxes:
        assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["width"] > 40 and box["height"] > 10
    picture, space = boxes[:2]
    beside = picture["x"] + picture["width"] <= space["x"]
    below = picture["y"] + picture["height"] <= space["y"]
    assert below if width < 760 else beside
    controls = boxes[3]
    assert controls["y"] + controls["height"] <= 800  # in sight without scrolling


def test_dark_scheme(open_page):
    page = open_page(make_poses(people=1), color_scheme="dark")
    assert count(page, "#c3ccd8") > 20
    page.emulate_media(color_scheme="light")
    page.wait_for_function("colours.tones[0] === '#3b4656'")
    assert count(page, DARK) > 20


def test_a_large_preview_is_played_from_beside_the_page(open_page, tmp_path, monkeypatch):
    monkeypatch.setattr(viewer, "EMBED_MOST", 1000)
    beside = tmp_path / "a #1 50% film.mp4"
    shutil.copy(SAMPLE, beside)
    page = open_page(make_poses(), beside)
    assert (tmp_path / "viewer.html").stat().st_size < 200_000
    page.keyboard.press("Space")
    page.wait_for_function("frame >= 5 && film.currentTime > 0")


def test_a_preview_that_does_not_play_is_left_out(open_page, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no film" * 1000)
    page = open_page(make_poses(), broken)
    page.wait_for_function("video === null")
    assert "cannot play the video" in page.locator("#summary").text_content()
    page.keyboard.press("Space")
    page.wait_for_function("frame >= 5")


def test_people_far_apart_are_followed_one_at_a_time(open_page):
    poses = make_poses()
    far = replace(poses.people[1], world=poses.people[1].world + np.float32([50, 30, 0]))
    page = open_page(replace(poses, people=[poses.people[0], far]))
    assert page.get_by_label("Focus camera on person 1").get_attribute("aria-pressed") == "true"
    assert count(page, DARK) > 200
    assert page.evaluate("floor.x[1] > 50 && floor.y[1] > 30")


def test_long_videos_are_written_a_block_at_a_time(tmp_path):
    """100 000 frames of one person as memory maps: 19 MB of page and at most a few MB of memory at a time."""
    poses = make_poses(people=1)
    frames, person = 100_000, poses.people[0]

    def repeated(name):
        array = getattr(person, name)
        large = np.lib.format.open_memmap(tmp_path / f"{name}.npy", "w+", array.dtype, (frames, *array.shape[1:]))
        for start in range(0, frames, len(array)):
            large[start : start + len(array)] = array[: frames - start]
        return large

    arrays = {name: repeated(name) for name in ("keypoints", "bridged", "camera", "world")}
    long = replace(poses, times=np.arange(frames) / FPS, people=[replace(person, frames=np.arange(frames), **arrays)])
    tracemalloc.start()
    write_viewer(long, tmp_path / "viewer.html")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "viewer.html").stat().st_size > 15e6
    assert peak < 20e6


def test_errors_name_the_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        write_viewer(make_poses(), tmp_path / "viewer.html", tmp_path / "film.mp4")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        write_viewer(make_poses(), tmp_path / "file" / "viewer.html")
    assert not (tmp_path / "viewer.html").exists()
