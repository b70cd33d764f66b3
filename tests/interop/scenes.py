"""The list of scenes, and how they are played: one after the other, each with a time of its own."""

import asyncio
import inspect
import time
import traceback

SCENES = []


def scene(peer, seconds=90):
    """Adds a scene. Its name is its sentence; `peer` is the program that talks to waft."""

    def add(play):
        SCENES.append((peer, play.__name__.replace("_", " "), play, seconds))
        return play

    return add


def play_all(house, only):
    """Plays the scenes whose peer or name contains one of `only`, or all; gives (passed, failed)."""
    passed, failed = 0, 0
    for peer, name, play, seconds in SCENES:
        if only and not any(word in f"{peer}: {name}" for word in only):
            continue
        began = time.monotonic()
        try:
            asyncio.run(asyncio.wait_for(play(house), seconds))
            passed += 1
            print(f"ok      {peer}: {name} ({time.monotonic() - began:.1f} s)", flush=True)
        except Exception as error:
            failed += 1
            print(f"FAILED  {peer}: {name}", flush=True)
            if isinstance(error, (asyncio.TimeoutError, AssertionError)) and str(error):
                print(f"        {error}", flush=True)
            else:
                traceback.print_exc()
        if house.process.poll() is not None:
            print("waft has ended; starting it again", flush=True)
            failed += 1
            house.start()
    return passed, failed


async def eventually(what, condition, seconds=30):
    """Waits until `condition()` is true, or fails with `what`."""
    until = time.monotonic() + seconds
    while True:
        result = condition()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return result
        assert time.monotonic() < until, f"waited {seconds} s for {what}"
        await asyncio.sleep(0.02)
