"""The Android part on this machine's JVM: decisions as plain Java, the store over SQLite itself, the job in its own thread."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.android import host
from tests.java import jvm
from tests.targets import builds

NETWORK = re.compile(r"\b(javax?|android)\.net\.|\b(Server|Datagram)?Socket(Channel)?\b|HttpURLConnection|\bWebView\b")
Record = Callable[[str, object], None]

# Everything else of library and app is plain Java. A class joins this list only if it cannot do without Android.
TOUCH_ANDROID = {
    "AndroidDevice", "AssetArtifacts", "ExampleStore", "TrainingJobService",
    "AndroidInk", "BarView", "Classroom", "CompareActivity", "ComparisonView", "DrawActivity", "DrawScreen", "PadView",
}  # fmt: skip


def test_what_decides_does_not_touch_android() -> None:
    sources = [*host.LIBRARY.rglob("*.java"), *host.APP.rglob("*.java")]
    assert {path.stem for path in sources if host.touches_android(path)} == TOUCH_ANDROID


def test_no_java_of_the_device_side_names_a_class_of_the_network() -> None:
    sources = [*host.LIBRARY.rglob("*.java"), *host.APP.rglob("*.java"), *(builds.RUNTIME / "java").rglob("*.java")]
    assert len(sources) > 50
    assert [path.name for path in sources if NETWORK.search(path.read_text(encoding="utf-8"))] == []
    assert all(NETWORK.search(text) for text in ("import java.net.URL;", "import android.net.Uri;", "new Socket(h, 1)"))


def test_the_plain_classes(record_property: Record) -> None:
    path = [host.plain_classes(), jvm.jar(), *jvm.JUNIT]
    names = [f"io.pocketticket.android.{name}" for name in ("TrainingPolicyTest", "DecisionsTest", "PersonalModelTest")]
    record_property("JUnit tests", jvm.junit_passed(host.run(path, host.JUNIT, *names)))


def test_the_store_and_the_job_with_stand_ins_for_android(record_property: Record) -> None:
    names = [f"io.pocketticket.android.{name}" for name in host.STAND_IN_TESTS]
    output = host.run(host.stand_in_path(), host.JUNIT, *names)
    record_property("JUnit tests", jvm.junit_passed(output))
