#!/usr/bin/env bash
exec bash "$(dirname "$0")/../../eval/mmbench_cn.sh" v1_6 "$@"
