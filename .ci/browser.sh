#!/usr/bin/env bash
# The browser that tests/web drives. Continuous integration (CI=true) installs it by apt where there is none; nowhere else is
# anything installed, and the tests that need it are skipped.
for name in chromium chromium-browser google-chrome; do
    if command -v "$name" > /dev/null; then
        exit 0
    fi
done
if [ "${CI:-}" != true ]; then
    echo "no Chromium: the tests of the page in a browser are skipped; apt-get install chromium has one"
    exit 0
fi
apt=(apt-get)
if [ "$(id -u)" -ne 0 ]; then
    apt=(sudo apt-get)
fi
"${apt[@]}" update -q && DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -q -y --no-install-recommends chromium
