"""Exit 0 if this container's own service says it is ready; used by the image's HEALTHCHECK."""

import os
import sys
import urllib.request

TIMEOUT_S = 4


def main() -> int:
    url = f"http://127.0.0.1:{os.environ.get('FLEET_HTTP_PORT', '8000')}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # always our own loopback address
            return 0 if answer.status == 200 else 1
    except OSError as error:
        print(f"{url}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
