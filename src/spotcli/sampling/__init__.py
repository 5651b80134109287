"""The sampling wing: the problems still to answer, answers as graded rows, shards."""
