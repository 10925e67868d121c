"""Waiting, as the two clients do it."""

import asyncio
import time

pause_async = asyncio.sleep
pause = time.sleep
