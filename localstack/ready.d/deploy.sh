#!/bin/sh
# LocalStack's init hook. It runs whenever LocalStack has started, and LocalStack is empty then.
cat /proc/sys/kernel/random/uuid > /starts/last
echo "LocalStack has started, without a stack. It is deployed by the service localstack-deploy, or by: make up AWS=localstack"
