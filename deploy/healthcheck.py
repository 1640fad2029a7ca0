"""Exit 0 if this container's own service says it is ready, or what the argument names answers: HEALTHCHECK."""

import os
import sys
import urllib.request

TIMEOUT_S = 4


def main() -> int:
    url = sys.argv[1] if sys.argv[1:] else f"http://127.0.0.1:{os.environ.get('FLEET_HTTP_PORT', '8000')}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310  # our own address
            return 0 if answer.status == 200 else 1
    except (OSError, ValueError) as error:
        print(f"{url}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
