"""Takes as long to import as a large library, and says when it has begun."""

import os
import time
from pathlib import Path

Path(os.environ["BEGUN"]).touch()
time.sleep(1)
