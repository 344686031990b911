"""A headless Chromium, driven through its debugging pipe: no driver, no network, no port."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time

CHROMIUM = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome", "chrome")
        if (path := shutil.which(name))
    ),
    None,
)
_LONGEST_S = 180.0


class Page:
    """One open page."""

    def __init__(self, to_browser, from_browser, folder):
        self._to, self._from, self._buffer, self._number = to_browser, from_browser, b"", 0
        self._folder, self._session = folder, None
        self.requests, self.problems = [], []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    def open(self, path, width=1280, height=800, *, dark=False):
        """Load a file and wait until its script has run."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = "dark" if dark else "light"
        self._call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        self._call("Page.navigate", url=f"file://{path}")
        self.wait("document.readyState === 'complete' && !!document.querySelector('#count')")

    def value(self, expression):
        """The value of a JavaScript expression."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def wait(self, expression):
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + _LONGEST_S
        while not self.value(expression):
            assert time.monotonic() < deadline, f"never true: {expression}"
            self._pump(0.05)

    def click(self, selector, nth=0):
        """Click in the middle of an element, as a person would."""
        box = f"document.querySelectorAll({json.dumps(selector)})[{nth}].getBoundingClientRect()"
        x, y = self.value(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({box})")
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text):
        """Type into what has the focus."""
        self._call("Input.insertText", text=text)

    def key(self, name):
        """Press a key by its name, such as ``ArrowDown``."""
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=name, code=name)

    def screenshot(self, name):
        """Save a picture beside the page, for a person to look at."""
        data = self._call("Page.captureScreenshot")["data"]
        path = self._folder / f"{name}.png"
        path.write_bytes(base64.b64decode(data))
        return path

    def _call(self, method, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        number, deadline = self._number, time.monotonic() + _LONGEST_S
        while time.monotonic() < deadline:
            for answer in self._pump(1.0):
                if answer.get("id") == number:
                    assert "error" not in answer, f"{method}: {answer['error']}"
                    return answer["result"]
        raise AssertionError(f"the browser did not answer {method}")

    def _pump(self, longest_s):
        """Read what the browser says for a while; events are kept."""
        answers = []
        if select.select([self._from], [], [], longest_s)[0]:
            data = os.read(self._from, 1 << 20)
            assert data, "the browser has gone"
            self._buffer += data
        while b"\0" in self._buffer:
            raw, self._buffer = self._buffer.split(b"\0", 1)
            message = json.loads(raw)
            method, params = message.get("method"), message.get("params", {})
            if method == "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            elif method in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.problems.append(params)
            elif "id" in message:
                answers.append(message)
        return answers


@contextlib.contextmanager
def chromium(folder):
    """Start a browser whose profile is below `folder`; gives a `Page`."""
    for_browser, to_browser = os.pipe()
    from_browser, by_browser = os.pipe()
    arguments = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",  # the sandbox does not start as root, which containers are
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}",
        "--remote-debugging-pipe",
    ]
    # Chromium reads from descriptor 3 and writes to 4. The shell moves them there, because
    # pass_fds keeps numbers as they are.
    script = f'exec 3<&{for_browser} 4>&{by_browser}; exec "$0" "$@"'
    process = subprocess.Popen(
        ["bash", "-c", script, *arguments],
        pass_fds=(for_browser, by_browser),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(for_browser)
    os.close(by_browser)
    try:
        yield Page(to_browser, from_browser, folder)
    finally:
        os.close(to_browser)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        process.kill()
        process.wait()
        os.close(from_browser)
