"""The function RQ's workers import."""

import time

import marks


def bench(payload):
    ms = marks.start(payload)
    if ms:
        time.sleep(ms / 1000)
