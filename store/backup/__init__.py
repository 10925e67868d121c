"""Backup and restore: every row, and every byte that rows name, as one archive.

The bytes come first, as they may take hours and never change; the rows follow, in one snapshot, and then the bytes
that became known meanwhile. So the rows are never older than a run folder, whose attempts they count, and a job that
runs during a backup continues after a restore as after a crash.
"""
