#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/textvqa.sh" v1_6 "$@"
