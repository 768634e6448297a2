# What there is to do here. Everything works on a fresh clone with Go alone,
# except what says otherwise; what tests and benchmarks need besides Go is
# installed into .cache/ of this checkout by scripts/install.

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.7.0
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.1.4
NFPM        = github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.4
VERSION    ?= 0.0.0~dev
ARCH       ?= $(shell go env GOARCH)
FUZZTIME   ?= 10s
ARGS       ?=

.DEFAULT_GOAL := build
.PHONY: build run test unit conformance reliability lint check generate bench torture fuzz-short man package clean

build: ## the binary, in bin/
	CGO_ENABLED=0 go build -trimpath -o bin/millrace ./cmd/millrace

run: ## a server on the default ports, its data in ./data
	go run ./cmd/millrace serve $(ARGS)

test: check unit conformance reliability ## everything that must be green

unit: ## tests of the main module, with the race detector
	scripts/install postgres opensearch kafka formats
	PEERS=required go test -race -timeout 10m ./...
	cd bench && go vet ./... && go test ./...

conformance: build ## official SDKs against the binary (needs Python, Node.js, Java and Maven)
	scripts/install python node java formats
	cd test && BINARY_UNDER_TEST=$(CURDIR)/bin/millrace go test -count=1 -timeout 10m -v ./conformance/...

reliability: build ## the short forms of the reliability suite
	cd test && BINARY_UNDER_TEST=$(CURDIR)/bin/millrace go test -count=1 -timeout 10m -v ./reliability/...

check: ## formatting, vet, staticcheck
	scripts/check gofmt vet staticcheck

lint: ## check, and known vulnerabilities where the database can be reached
	scripts/check gofmt vet staticcheck govulncheck

generate: ## types, codecs and tables from model/
	go generate ./...
	gofmt -l internal/api model

bench: build ## the rows of docs/performance.md, measured on this machine
	scripts/install kinesalite ferrokinesis formats || echo "bench: a peer is missing and its row is left out"
	cd bench && go run . -binary $(CURDIR)/bin/millrace -cache $(CURDIR)/.cache $(ARGS)

torture: build ## the long forms: about two hours
	MILLRACE_TORTURE=1 go test -race -timeout 60m ./internal/...
	cd test && BINARY_UNDER_TEST=$(CURDIR)/bin/millrace TORTURE=1 go test -count=1 -timeout 120m -v ./reliability/...

fuzz-short: ## every fuzz target for FUZZTIME
	scripts/fuzz $(FUZZTIME)

man: build ## man pages, in bin/man
	rm -rf bin/man && mkdir -p bin/man
	bin/millrace man bin/man

package: ## deb and rpm for VERSION and ARCH, in bin/package
	rm -rf bin/package && mkdir -p bin/package/man bin/package/completions
	CGO_ENABLED=0 go build -trimpath -o bin/package/native ./cmd/millrace
	bin/package/native man bin/package/man
	gzip -9n bin/package/man/*.1
	bin/package/native completion bash >bin/package/completions/millrace.bash
	bin/package/native completion zsh >bin/package/completions/_millrace
	bin/package/native completion fish >bin/package/completions/millrace.fish
	CGO_ENABLED=0 GOOS=linux GOARCH=$(ARCH) go build -trimpath -ldflags "-s -w -X main.release=$(VERSION)" -o bin/package/millrace ./cmd/millrace
	VERSION=$(VERSION) ARCH=$(ARCH) go run $(NFPM) package --config packaging/nfpm.yaml --packager deb --target bin/package/
	VERSION=$(VERSION) ARCH=$(ARCH) go run $(NFPM) package --config packaging/nfpm.yaml --packager rpm --target bin/package/

clean:
	rm -rf bin .cache
