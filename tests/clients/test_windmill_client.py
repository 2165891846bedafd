"""The public API's own JavaScript client (npm `windmill-client`), unmodified, under Node and inside of a job."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from tests.support.npm import package
from tests.support.stack import PATIENCE_S, Stack

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("up")]

VERSION = "1.818.0"
OUTSIDE = """
import * as wmill from "windmill-client";

const workspace = "main";
const { JobService, ScriptService, UserService } = wmill;
const error = async (promise) => promise.then(() => "no error", (error) => String(error.message));
const code = "export async function main(x: number) { return x * 2 }";

const later = await wmill.runScriptByPathAsync("u/admin/add", { a: 1 }, 3600);
await wmill.cancelJob(later, "enough");
const id = await wmill.runScriptByPathAsync("u/admin/add", { a: 2 });
const result = await wmill.waitJob(id);
const job = await JobService.getJob({ workspace, id });
await ScriptService.createScript({
  workspace,
  requestBody: { path: "u/admin/double", summary: "", description: "", content: code, language: "bun", lock: "" },
});
console.log(JSON.stringify({
  me: (await UserService.whoami({ workspace })).email,
  byPath: await wmill.runScriptByPath("u/admin/add", { a: 1 }),
  byHash: await wmill.runScriptByHash(job.script_hash, { a: 4 }),
  result,
  job: [job.type, job.success, job.script_path],
  root: (await wmill.getRootJobId(id)) === id,
  again: await JobService.getCompletedJobResult({ workspace, id }),
  logs: (await JobService.getJobLogs({ workspace, id })).includes("adding"),
  failing: await error(wmill.runScriptByPath("u/admin/failing", {})),
  canceled: (await JobService.getCompletedJob({ workspace, id: later })).canceled_reason,
  listed: (await JobService.listJobs({ workspace, scriptPathExact: "u/admin/add" })).some((job) => job.id === id),
  exists: await ScriptService.existsScriptByPath({ workspace, path: "u/admin/double" }),
  doubled: await wmill.runScriptByPath("u/admin/double", { x: 21 }),
}));
"""
INSIDE = f"""
import * as wmill from "windmill-client@{VERSION}"

export async function main() {{
  await wmill.setProgress(30)
  const job = await wmill.JobService.getJob({{ workspace: process.env.WM_WORKSPACE!, id: process.env.WM_JOB_ID! }})
  const root = await wmill.getRootJobId()
  return {{ kind: job.job_kind, progress: await wmill.getProgress(), root: root === job.id,
    sum: await wmill.runScriptByPath("u/admin/add", {{ a: 1 }}) }}
}}
"""


def test_under_node(stack: Stack):
    """It runs scripts by path and hash and waits for them, hears of failures, cancels, lists, deploys."""
    said = subprocess.run(
        ["node", "--input-type=module", "-"],
        cwd=package("windmill-client", VERSION),
        env={**os.environ, "BASE_URL": stack.url, "WM_TOKEN": stack.token, "WM_WORKSPACE": "main"},
        input=OUTSIDE,
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert said.returncode == 0, said.stderr
    heard: dict[str, Any] = json.loads(said.stdout)
    assert "not today" in heard.pop("failing")
    assert heard == {
        "me": "admin@millhand.local", "byPath": {"sum": 3}, "byHash": {"sum": 6}, "result": {"sum": 4},
        "job": ["CompletedJob", True, "u/admin/add"], "root": True, "again": {"sum": 4}, "logs": True,
        "canceled": "enough", "listed": True, "exists": True, "doubled": 42,
    }  # fmt: skip


def test_inside_a_job(stack: Stack):
    """A Bun script that imports it finds its own job and progress, and runs another script with its token."""
    preview = {"content": INSIDE, "language": "bun", "args": {}}

    result = stack.api().post("jobs/run_wait_result/preview", preview)

    assert result == {"kind": "preview", "progress": 30, "root": True, "sum": {"sum": 3}}
