# make quickstart, make test: all they need goes into this folder, nothing needs root.
TARGET := $(or $(CARGO_TARGET_DIR),target)
STORE ?=
# Stands in every manifest as the program's origin.
export TRIAD_COMMIT := $(shell git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null)

.PHONY: setup libtorch build quickstart test lint images images-test

setup: libtorch
	infra/tools.sh

libtorch:
	infra/libtorch.sh

build: libtorch
	cargo build --release --locked --workspace

# STORE=s3://bucket/prefix puts the run elsewhere than ./triad-store.
quickstart: build
	$(TARGET)/release/triad run jobs/quickstart.yaml $(if $(STORE),--store '$(STORE)')

test: setup
	cargo test --release --locked --workspace

lint: libtorch
	cargo fmt --all --check
	cargo check --locked --manifest-path fuzz/Cargo.toml --bins --examples
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps

# triad:cpu and triad:torch, compiled in Docker: nothing else is needed.
images:
	infra/images.sh

# Needs root, docker.io and debootstrap.
images-test: build setup
	tests/images.py $(TARGET)/release
