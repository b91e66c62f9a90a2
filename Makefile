# The commands; dev/xtask does the work. `make up AWS_PORT=4567` passes it a setting.

.DEFAULT_GOAL := help

XTASK = target/debug/xtask
BUILD = test -x $(XTASK) || echo "  … runner     compiling dev/xtask (once; takes a minute)" >&2; cargo build --quiet --bin xtask
# These must not wait for a compilation in another terminal: they use the existing runner, if there
# is one.
AT_ONCE = down help logs token url

OTHERS = bench bench-counts bench-peers build chaos check clean-data contract coverage deploy-sandbox \
  destroy-sandbox dev dlq fmt invoke lint load openapi redrive sam-local scale sqlx test up verify \
  verify-containers

.PHONY: $(AT_ONCE) $(OTHERS)

$(AT_ONCE)::
	@test -x $(XTASK) || { $(BUILD); }; $(XTASK) $@

$(OTHERS)::
	@$(BUILD) && $(XTASK) $@

-include dev/lift/Makefile
-include interview/Makefile
