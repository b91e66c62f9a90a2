# The few commands a person types; dev/xtask/ does the work. `make up AWS_PORT=4567` hands it a setting.

.DEFAULT_GOAL := help

RUNNER = target/debug/xtask
BUILD_RUNNER = test -x $(RUNNER) || echo "  … runner     compiling xtask (a minute, once)" >&2; cargo build --quiet --bin xtask
XTASK = $(BUILD_RUNNER) && $(RUNNER)
# For what must not wait for a cargo that compiles: as the runner is, if there is one.
XTASK_NOW = test -x $(RUNNER) || { $(BUILD_RUNNER); }; $(RUNNER)

.PHONY: help up down clean-data url logs dev sam-local deploy-sandbox destroy-sandbox dlq redrive token check test verify chaos contract bench bench-counts coverage lint sqlx openapi fmt exercise grade exercise-reset

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  Settings that make up keeps for the next commands: AWS_PORT (4566), POSTGRES_PORT (55432), DATABASE_URL,"
	@echo "  AUTH (open), AWS (ministack, or localstack). Others: PROFILE (local, or release), RUST_LOG, STACK, T (test: only"
	@echo "  those with this in their name), SAM_PORT (3000), YES=1 (asks nothing), LOOP=1 (bench: how long a person waits), N (exercise:"
	@echo "  which one, as in exercises/)"

up: ## Install what is missing, start everything, deploy template.yaml, print the URLs (AWS=localstack: in Docker)
	@$(XTASK) up

down: ## Stop everything; the data stays
	@$(XTASK_NOW) down

clean-data: ## Stop everything and forget the data
	@$(XTASK) clean-data

url: ## Print the API's URL: export API=$$(make url)
	@$(XTASK_NOW) url

logs: ## Follow the functions' logs
	@$(XTASK_NOW) logs

dev: ## Bring the stack up; then compile each change and swap it in
	@$(XTASK) dev

sam-local: ## Serve the routes on http://127.0.0.1:3000 in AWS's Lambda image (needs Docker)
	@$(XTASK) sam-local

deploy-sandbox: ## Show what it costs, ask, and deploy to the AWS account that you are logged in to
	@$(XTASK) deploy-sandbox

destroy-sandbox: ## Ask, and delete all that deploy-sandbox made
	@$(XTASK) destroy-sandbox

dlq: ## List the dead-letter queue, and why its tasks failed
	@$(XTASK) dlq

redrive: ## Show the dead-letter queue, ask, and send what is in it to the task queue again
	@$(XTASK) redrive

token: ## Print a token for `make up AUTH=closed` (SUBJECT, SCOPE)
	@$(XTASK_NOW) token

check: ## Format, lints, and the tests that need no deployment: a minute
	@$(XTASK) check

test: ## Install what is missing, run every test against a real Postgres and SQS (T=…: some)
	@$(XTASK) test

verify: ## What needs release builds or much time: sizes, instructions, exercises, the whole contract, faults
	@$(XTASK) verify

chaos: ## Create 2,000 tasks while everything fails in turn; count what is lost or done twice (TASKS, SEED)
	@$(XTASK) chaos

contract: ## Hold the running API against openapi.json, with thousands of requests
	@$(XTASK) contract

bench: ## Measure cold starts, requests, batches, pages: a table, and docs/performance.md (LOOP=1: how long a person waits)
	@$(XTASK) bench

bench-counts: ## Refresh the instruction counts that `make test` compares with
	@$(XTASK) bench-counts

coverage: ## Run the tests with coverage: a table, and HTML in coverage/
	@$(XTASK) coverage

lint: ## Check template.yaml (SAM, cfn-lint, checkov) and openapi.json (Redocly)
	@$(XTASK) lint

sqlx: ## Refresh .sqlx after a change of a query or a migration
	@$(XTASK) sqlx

openapi: ## Refresh openapi.json after a change of what the API takes or answers
	@$(XTASK) openapi

fmt: ## Format the Rust code
	@cargo fmt --all
	@if test -d interviewer; then rustfmt --edition 2024 interviewer/*/grader.rs; fi

exercise: ## Begin the exercise N=<name> of exercises/, on a branch of its own
	@$(XTASK) exercise

grade: ## Check what you have of the exercise that you are in
	@$(XTASK) grade

exercise-reset: ## End the exercise that you are in, and go back; the work is kept as a commit
	@$(XTASK) exercise-reset
