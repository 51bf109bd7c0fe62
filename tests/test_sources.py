"""`expand_sources` and `list_images`: files, folders, patterns, URLs and videos."""

import numpy as np
import pytest
from PIL import Image

from florence_lab import ArgumentError, ImageError, load_image
from florence_lab.exceptions import FlorenceLabWarning, capture_warnings
from florence_lab.sources import expand_sources, list_images

FRAMES_PER_SECOND = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two images, a text and a hidden file, and a folder with a third image."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "more").mkdir()
    for name in ("b.png", "a.jpg", "more/c.png"):
        Image.new("RGB", (8, 8), "red").save(folder / name)
    (folder / "notes.txt").write_text("x")
    (folder / ".hidden").write_text("x")
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Three seconds at 10 frames per second: red, green, then blue."""
    import av

    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=FRAMES_PER_SECOND)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for color in ("red", "lime", "blue"):
            pixels = np.asarray(Image.new("RGB", (64, 48), color))
            for _ in range(FRAMES_PER_SECOND):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    return path


def names(sources, **options):
    with capture_warnings():
        return [source.name.rsplit("/", 1)[-1] for source in expand_sources(sources, **options)]


def test_files_folders_and_patterns(folder):
    assert names([folder]) == ["a.jpg", "b.png"]
    assert names([folder], recursive=True) == ["a.jpg", "b.png", "c.png"]
    assert names([str(folder / "*.png"), folder / "a.jpg"]) == ["b.png", "a.jpg"]
    assert names([str(folder / "**" / "*.png")]) == ["b.png", "c.png"]


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    path = tmp_path / "a[1].png"
    Image.new("RGB", (8, 8)).save(path)
    (source,) = expand_sources([str(path)])
    assert load_image(source.image).size == (8, 8)


def test_urls_are_passed_on():
    urls = ["https://example.org/a*b.png?x=[1]", "data:image/png;base64,AAAA"]
    assert [source.image for source in expand_sources(urls)] == urls


def test_what_a_folder_leaves_out_is_named(folder):
    with pytest.warns(FlorenceLabWarning, match=r"1 file of another kind \(notes.txt\) and 1 folder .* left out"):
        list_images(folder)


@pytest.mark.parametrize("name", ["missing.png", "*.tif", "missing/", "x" * 5000, "~nobody-of-that-name/x"])
def test_a_source_without_an_image_is_an_image_error_of_its_own(folder, name):
    with capture_warnings():
        first, last = expand_sources([name if name.startswith("~") else str(folder / name), folder / "a.jpg"])
    with pytest.raises(ImageError):
        load_image(first.image)
    assert load_image(last.image).size == (8, 8)


def test_an_empty_folder_is_an_error_that_names_what_it_contains(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ImageError, match=r"contains no image files, but 1 file of another kind \(notes.txt\)"):
        list_images(tmp_path)
    with pytest.raises(ImageError, match="contains no image files"):
        load_image(next(expand_sources([tmp_path])).image)


def test_frames_of_a_video(video):
    frames = list(expand_sources([video]))
    assert [frame.name.rsplit("#")[-1] for frame in frames] == ["t=0", "t=1", "t=2"]
    colors = [np.asarray(load_image(frame.image)).mean(axis=(0, 1)).argmax() for frame in frames]
    assert colors == [0, 1, 2]  # red, green, blue
    assert len(list(expand_sources([video], frame_interval=0.5))) == 6
    assert len(list(expand_sources([video], frame_interval=0.001))) == 30


def test_a_damaged_video_is_an_image_error(video, tmp_path):
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(video.read_bytes()[:200])
    (source,) = expand_sources([damaged])
    with pytest.raises(ImageError, match=r"damaged.mp4 cannot be read as a video"):
        load_image(source.image)


def test_a_video_is_not_an_image(video):
    with pytest.raises(ImageError, match="is a video; pass it to predict_iter"):
        load_image(video)


@pytest.mark.parametrize("options", [{"frame_interval": 0}, {"frame_interval": "1s"}, {"recursive": "yes"}])
def test_invalid_options(folder, options):
    with pytest.raises(ArgumentError):
        list(expand_sources([folder], **options))


@pytest.mark.parametrize("sources", [None, "a.png", [3], [b"a.png"]])
def test_invalid_sources(sources):
    with pytest.raises(ArgumentError):
        list(expand_sources(sources))
