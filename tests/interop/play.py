"""Plays all scenes against a waft of its own, or those whose names contain one of the words given."""

import logging
import os
import sys

from house import House
from scenes import play_all

import with_slixmpp  # noqa: F401
import with_slixmpp_admin  # noqa: F401
import with_components  # noqa: F401
import with_slixmpp_devices  # noqa: F401
import with_slixmpp_messages  # noqa: F401
import with_sockets  # noqa: F401
import with_profanity  # noqa: F401
import with_xmpp_js  # noqa: F401


def main():
    # What goes wrong on purpose is no news.
    logging.getLogger("slixmpp").setLevel(logging.CRITICAL + 1)
    house = House(os.environ["WAFT_BIN"])
    house.start()
    passed, failed = play_all(house, sys.argv[1:])
    if not house.stop():
        print("FAILED  waft did not end in order", flush=True)
        failed += 1
    if failed:
        print("---- what waft said last ----", *house.said().splitlines()[-60:], sep="\n", flush=True)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
