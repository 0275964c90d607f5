"""The README's snippets in Java and Kotlin compile against the SDK as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from device_runtime.java.build import compile_java
from tests.java import jvm
from tests.targets import builds
from tests.targets.builds import ROOT

JAVA = """
import io.pocketticket.*;
import java.io.File;

class Snippet {{
  static void run(File folder, float[] samples, int[] labels) throws Exception {{
{}
  }}
}}
"""
KOTLIN = """
import io.pocketticket.*
import java.io.File
import java.util.concurrent.Executor

fun show(step: Long, loss: Float) = println("$step $loss")

fun run(folder: File, publicPem: String, samples: FloatArray, labels: IntArray, executor: Executor) {{
{}
}}
"""


def snippet(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return str(found)


def test_the_snippet_in_java_compiles(tmp_path: Path) -> None:
    sdk, source = jvm.jar(), tmp_path / "Snippet.java"
    source.write_text(JAVA.format(snippet("java")), encoding="utf-8")
    with jvm.told("javac"):
        compile_java([source], tmp_path, [sdk])


def test_the_snippet_in_kotlin_compiles(tmp_path: Path) -> None:
    sdk, source = jvm.jar(), tmp_path / "Snippet.kt"
    if builds.find("kotlinc") is None:
        pytest.skip("kotlinc (package kotlin) is not installed")
    source.write_text(KOTLIN.format(snippet("kotlin")), encoding="utf-8")
    builds.run(["kotlinc", "-classpath", str(sdk), "-d", str(tmp_path), str(source)])
    assert (tmp_path / "SnippetKt.class").exists()
