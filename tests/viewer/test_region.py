"""Drawing a region in a browser, on a model that the test plays."""

import time

import pytest
from front_end import CHROMIUM, photo, playwright

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")]

expect = playwright.expect


class TestRegion:
    REGION = (35, 237, 157, 337)

    @pytest.fixture
    def region(self, front_end):
        front_end.show(photo(), takes_region=True)
        expect(front_end.root.get_by_text("Drag a region on the image")).to_be_visible()
        return front_end

    @staticmethod
    def point(front_end, x, y):
        """Return the place in the window of a point in image pixels."""
        return front_end.page.locator(".fl-region-layer").evaluate(
            "(layer, [x, y]) => { const p = new DOMPoint(x, y).matrixTransform(layer.getScreenCTM()); return [p.x, p.y] }",
            [x, y],
        )

    def drag(self, front_end, start, end, steps=5, release=True):
        (x, y), (to_x, to_y) = self.point(front_end, *start), self.point(front_end, *end)
        front_end.page.mouse.move(x, y)
        front_end.page.mouse.down()
        front_end.page.mouse.move(to_x, to_y, steps=steps)
        if release:
            front_end.page.mouse.up()

    def numbers(self, front_end):
        return [
            front_end.page.get_by_label(f"Region {name} in pixels").input_value() for name in ("x0", "y0", "x1", "y1")
        ]

    @staticmethod
    def shape(front_end):
        return front_end.page.get_by_role("application")

    @pytest.mark.parametrize("zoom", [1, 4])
    @pytest.mark.parametrize("steps", [1, 20])
    def test_a_drag_is_exact_to_the_pixel(self, region, zoom, steps):
        start, end = ((35, 237), (157, 337)) if zoom == 1 else ((220, 230), (263, 287))
        for _ in range(zoom // 4 * 6):
            region.page.locator(".fl-view").focus()
            region.page.keyboard.press("+")
        self.drag(region, start, end, steps)
        expect(self.shape(region)).to_be_visible()
        assert region.get("region") == [*start, *end]
        assert region.saved("region")[-1] == [*start, *end]
        assert self.numbers(region) == [str(value) for value in (*start, *end)]

    def test_from_any_corner_and_over_the_border(self, region):
        self.drag(region, (157, 337), (-20, 100))
        assert region.get("region") == [0, 100, 157, 337]

    def test_python_hears_of_a_drag_ten_times_a_second(self, region):
        start = time.monotonic()
        self.drag(region, (10, 10), (20, 20), release=False)
        for i in range(20):
            region.page.mouse.move(*self.point(region, 30 + i, 40))
            region.page.wait_for_timeout(20)
        assert self.numbers(region) == ["10", "10", "49", "40"]  # live
        region.page.mouse.up()
        assert 2 <= len(region.saved("region")) <= 10 * (time.monotonic() - start) + 2
        assert region.saved("region")[-1] == [10, 10, 49, 40]

    @pytest.mark.parametrize(
        ("start", "end", "expected"),
        [
            ((35, 237), (30, 200), [30, 200, 157, 337]),  # a corner
            ((157, 287), (200, 10), [35, 237, 200, 337]),  # a side
            ((96, 337), (96, 200), [35, 200, 157, 237]),  # a side over the opposite one
            ((100, 300), (110, 320), [45, 257, 167, 357]),  # the inside
            ((100, 300), (900, 900), [390, 412, 512, 512]),  # not over the border
            ((300, 50), (320, 90), [300, 50, 320, 90]),  # outside: a new one
        ],
    )
    def test_handles_and_the_inside(self, front_end, start, end, expected):
        front_end.show(photo(), takes_region=True, region=list(self.REGION))
        expect(self.shape(front_end)).to_be_visible()
        self.drag(front_end, start, end)
        assert front_end.get("region") == expected

    def test_by_keyboard_alone(self, region):
        region.page.get_by_role("button", name="Add region").focus()
        region.page.keyboard.press("Enter")
        expect(self.shape(region)).to_be_focused()
        assert region.get("region") == [128, 128, 384, 384]
        for key in ("ArrowLeft", "Shift+ArrowUp", "Alt+ArrowRight", "Alt+Shift+ArrowDown"):
            region.page.keyboard.press(key)
        assert self.numbers(region) == ["127", "118", "384", "384"]
        label = self.shape(region).get_attribute("aria-label")
        assert label.startswith("Region from x 127, y 118 to x 384, y 384.")
        region.page.wait_for_function("() => model.saved.at(-1).region[0] === 127")
        expect(region.root.get_by_role("status").filter(has_text="Region from x 127, y 118")).to_have_count(1)

    def test_keys_do_not_leave_the_image(self, front_end):
        front_end.show(photo(), takes_region=True, region=[0, 5, 512, 6])
        self.shape(front_end).focus()
        for key in ("ArrowLeft", "Shift+ArrowUp", "Alt+ArrowUp", "Alt+ArrowRight"):
            front_end.page.keyboard.press(key)
        assert self.numbers(front_end) == ["0", "0", "512", "1"]

    @pytest.mark.parametrize(
        ("name", "typed", "expected"),
        [
            ("x0", "40", [40, 237, 157, 337]),
            ("x1", "9999", [35, 237, 512, 337]),
            ("y0", "-3", [35, 0, 157, 337]),
            ("x0", "200", [200, 237, 322, 337]),  # keeps its width
            ("y1", "100", [35, 0, 157, 100]),
            ("y1", "", [35, 237, 157, 337]),
            ("y1", "300.6", [35, 237, 157, 301]),
        ],
    )
    def test_typed_numbers(self, front_end, name, typed, expected):
        front_end.show(photo(), takes_region=True, region=list(self.REGION))
        field = front_end.page.get_by_label(f"Region {name} in pixels")
        field.fill(typed)
        field.press("Enter")
        field.press("Tab")
        assert front_end.get("region") == expected
        assert self.numbers(front_end) == [str(value) for value in expected]

    def test_escape_and_the_button_clear(self, region):
        self.drag(region, (35, 237), (157, 337))
        region.page.keyboard.press("Escape")
        assert region.get("region") == []
        expect(self.shape(region)).to_have_count(0)
        expect(region.page.get_by_role("button", name="Add region")).to_be_focused()
        region.set(region=list(self.REGION))
        region.page.get_by_role("button", name="Clear").click()
        assert region.saved("region")[-1] == []

    def test_escape_in_a_drag_gives_the_former_region_back(self, front_end):
        front_end.show(photo(), takes_region=True, region=list(self.REGION))
        self.drag(front_end, (300, 50), (320, 90), release=False)
        front_end.page.keyboard.press("Escape")
        front_end.page.mouse.up()
        assert front_end.get("region") == list(self.REGION)

    def test_by_touch(self, region):
        session = region.page.context.new_cdp_session(region.page)
        points = [self.point(region, *p) for p in ((35, 237), (100, 300), (157, 337))]
        for kind, (x, y) in zip(("touchStart", "touchMove", "touchMove"), points, strict=True):
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        assert region.get("region") == list(self.REGION)

    def test_a_click_picks_an_instance_and_draws_nothing(self, front_end):
        instance = {
            "label": "sheep",
            "score": 0.9,
            "box": [35, 237, 157, 337],
            "contours": [],
            "style": 0,
            "filled": False,
        }
        answer = {
            "id": 1, "task": "<OD>", "task_name": "Object detection", "text": "", "image": "sheep", "model": "nano",
            "times": "", "complete": True, "truncated": False, "kind": "instances", "answer": "", "prompt": "",
            "instances": [instance], "segments": [], "regions": [],
        }  # fmt: skip
        front_end.show(photo(), takes_region=True, answers=[answer], phase="done")
        front_end.page.locator(".fl-shape").wait_for(state="attached")
        front_end.page.mouse.click(*self.point(front_end, 100, 300))
        assert front_end.get("selected") == [0]
        assert front_end.get("region") == []

    @pytest.mark.parametrize("how", ["Space", "middle"])
    def test_space_or_the_middle_button_pans(self, front_end, how):
        front_end.show(photo(), takes_region=True, region=list(self.REGION))
        front_end.page.locator(".fl-view").focus()
        for _ in range(3):
            front_end.page.keyboard.press("+")
        front_end.page.wait_for_timeout(100)
        before = self.point(front_end, 256, 256)
        front_end.page.mouse.move(*before)
        if how == "Space":
            front_end.page.keyboard.down(" ")
        front_end.page.mouse.down(button="middle" if how == "middle" else "left")
        front_end.page.mouse.move(before[0] + 30, before[1] + 20, steps=4)
        front_end.page.mouse.up(button="middle" if how == "middle" else "left")
        front_end.page.keyboard.up(" ")
        front_end.page.wait_for_timeout(100)
        after = self.point(front_end, 256, 256)
        assert [round(b - a) for a, b in zip(before, after, strict=True)] == [30, 20]
        assert front_end.get("region") == list(self.REGION)

    def test_another_image_ends_what_is_drawn(self, region):
        self.drag(region, (10, 10), (200, 200), release=False)
        region.set(picture={"id": "2", "name": "other", "width": 100, "height": 80}, region=[])
        region.page.mouse.up()
        region.page.wait_for_timeout(200)
        assert region.get("region") == []

    def test_no_tool_without_a_region_task(self, region):
        region.set(takes_region=False)
        expect(region.root.get_by_text("Drag a region on the image")).to_be_hidden()
        self.drag(region, (10, 10), (200, 200))
        assert region.get("region") == []
