#!/bin/sh
# LocalStack's init hook, for its log: it runs whenever LocalStack is ready, and that is empty.
echo "LocalStack is ready, without a stack: its free image keeps nothing. To deploy: make up AWS=localstack"
