"""A module of a step whose import takes long."""

import time

time.sleep(30)


def nothing(args, emit):
    return {}
