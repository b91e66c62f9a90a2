# The few commands a person types; xtask/ does the work. `make up AWS_PORT=4567` hands it a setting.

.DEFAULT_GOAL := help

XTASK = test -x target/debug/xtask || echo "  … runner     compiling xtask (a minute, once)"; cargo xtask

.PHONY: help up down clean-data logs dev sam-local deploy-sandbox destroy-sandbox dlq redrive token test chaos contract bench bench-counts coverage lint sqlx openapi fmt exercise grade exercise-reset

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  Settings: AWS_PORT (4566), POSTGRES_PORT (55432), DEV_PORT (9000), DATABASE_URL, RUST_LOG, STACK, AUTH (open),"
	@echo "  AWS (ministack, or localstack), SAM_PORT (3000), YES=1 (asks nothing), BUILD=1 (bench: builds, too),"
	@echo "  N (exercise: which one, as in exercises/)"

up: ## Install what is missing, start everything, deploy template.yaml, print the URLs (AWS=localstack: in Docker)
	@$(XTASK) up

down: ## Stop everything; the data stays
	@$(XTASK) down

clean-data: ## Stop everything and forget the data
	@$(XTASK) clean-data

logs: ## Follow the functions' logs
	@$(XTASK) logs

dev: ## Serve the routes on http://localhost:9000 with hot reload
	@$(XTASK) dev

sam-local: ## Serve the routes on http://127.0.0.1:3000 in AWS's Lambda image (needs Docker)
	@$(XTASK) sam-local

deploy-sandbox: ## Show what it costs, ask, and deploy to the AWS account that you are logged in to
	@$(XTASK) deploy-sandbox

destroy-sandbox: ## Ask, and delete all that deploy-sandbox made
	@$(XTASK) destroy-sandbox

dlq: ## List the dead-letter queue, and why its tasks failed
	@$(XTASK) dlq

redrive: ## Send what is in the dead-letter queue to the task queue again
	@$(XTASK) redrive

token: ## Print a token for `make up AUTH=closed` (SUBJECT, SCOPE)
	@$(XTASK) token

test: ## Install what is missing, run every test against a real Postgres and SQS
	@$(XTASK) test

chaos: ## Create 2,000 tasks while everything fails in turn; count what is lost or done twice (TASKS, SEED)
	@$(XTASK) chaos

contract: ## Hold the running API against openapi.json, with thousands of requests
	@$(XTASK) contract

bench: ## Measure cold starts, requests, batches, pages: a table, and docs/performance.md (BUILD=1: builds, too)
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
