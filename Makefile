# Everything starts here. `make demo` and `make test` are the two commands of the README; both
# install what is missing (scripts/need says what and why, and stops with a list where it may not).

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
PREFIX ?= /usr/local
GO ?= go
# nodynamic: pictures are coded by what is in the binary, never by a library of the machine, which
# would make it need one.
TAGS = nodynamic
LDFLAGS = -s -w -X main.version=$(VERSION)

.PHONY: build demo test unit lint scenarios conformance bench install package clean

build: bin/tenfold

bin/tenfold: FORCE
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -tags '$(TAGS)' -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/tenfold
FORCE:

## demo: install what is missing, build, run the example; Ctrl-C stops everything
demo:
	@scripts/need demo
	@$(MAKE) --no-print-directory build
	@cd examples/conduit && exec ../../bin/tenfold up

## test: everything that proves it, but the slower scenarios
test:
	@scripts/need test
	@$(MAKE) --no-print-directory lint unit

unit:
	$(GO) test -race ./...
	$(GO) test -count 1 -run 'StaySmall|AVIFWhere|BesidePeers|ModelsAre|PlayedServers' ./internal/keeper ./tier/edge/image ./tier/pgproxy ./bench/compute/scaling # not with the race detector
	cd examples/conduit/api && $(GO) test ./...

lint:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "gofmt these: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags scenario ./test/ ./tier/postgres
	$(GO) tool staticcheck -checks inherit,-ST1005,-SA1012 ./...

## scenarios: what a user sees, over the real binary (minutes)
scenarios: build
	@scripts/need scenarios
	$(GO) test -tags scenario -count 1 -timeout 30m -parallel 4 -v ./test/ # most wait most of the time
	$(GO) test -race -tags scenario -count 1 -timeout 15m -run "$$(grep -ohE '^func Test\w+' $$(grep -lx '//go:build scenario' tier/postgres/*_test.go) | cut -c6- | paste -sd'|')" ./tier/postgres # databases that die, in several ways

## conformance: third-party suites, fetched or beside the checkout; says what it skips
conformance:
	@scripts/need conformance
	@mkdir -p bin/tools
	GOBIN=$(CURDIR)/bin/tools $(GO) install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible
	GOBIN=$(CURDIR)/bin/tools $(GO) install github.com/letsencrypt/pebble/v2/cmd/pebble@v2.10.1
	GOBIN=$(CURDIR)/bin/tools $(GO) install github.com/versity/versitygw/cmd/versitygw@v1.8.0
	@for p in client server; do [ -x bin/tools/grpc-$$p ] || { GOBIN=$(CURDIR)/bin/tools/grpc $(GO) install google.golang.org/grpc/interop/$$p@v1.85.0 && mv bin/tools/grpc/$$p bin/tools/grpc-$$p; } || exit 1; done
	PATH="$(CURDIR)/bin/tools:$$PATH" $(GO) test -tags conformance -count 1 -p 3 -timeout 40m -v -run 'Conformance|H2spec' -skip 'ConformancePgx|ConformanceGoPG' ./tier/cache ./daemon ./tier/edge ./tier/edge/httpcache ./tier/edge/wire ./tier/edge/certs ./tier/pgproxy ./tier/table # pgx's and go-pg's by hand

## bench B=<area>: us and the peers in the same run, a line per figure
bench: build
	@[ -n "$(B)" ] || { echo "which area? make bench B=house"; exit 2; }
	$(GO) run ./bench/$(B)

install: build
	install -D -m 755 bin/tenfold $(DESTDIR)$(PREFIX)/bin/tenfold

## package: dist/tenfold_<version>_<arch>.deb and .tar.gz
package: build
	scripts/package '$(VERSION)'

clean:
	rm -rf bin dist
