"""The snippets of docs/android.md compile as they stand there, against Android's own classes of API 23."""

from __future__ import annotations

import re
from pathlib import Path

from examples.android import build_apk
from tests.android import host
from tests.java import jvm
from tests.targets.builds import ROOT

SNIPPETS = """
import android.content.Context;
import io.pocketticket.*;
import io.pocketticket.android.*;
import java.io.File;
import java.io.IOException;

abstract class Snippets {{
  static void run(Context context, float[] sample, int label) throws Exception {{
{}
  }}

  static void schedule(Context context) {{
    TrainingJobService.schedule(context, Nightly.class, 1);
  }}

  static Artifact artifact() {{ return null; }}
  static File directory() {{ return null; }}
  static Lesson lesson() {{ return null; }}

  // It has the methods above by its outer class.
  static
{}
}}
"""


def test_the_snippets_compile(tmp_path: Path) -> None:
    jvm.need()
    android = host.android_jar()
    text = (ROOT / "docs/android.md").read_text(encoding="utf-8")
    run, job = re.findall(r"```java\n(.*?)```", text, re.DOTALL)
    (tmp_path / "source").mkdir()
    (tmp_path / "source/Snippets.java").write_text(SNIPPETS.format(run, job), encoding="utf-8")
    assert "TrainingJobService.schedule(context, Nightly.class, 1)" in text
    sources = [tmp_path / "source", *build_apk.LIBRARY_JAVA]
    build_apk.compile_java(sources, android, tmp_path / "classes")
    assert list((tmp_path / "classes").glob("Snippets*Nightly.class"))
