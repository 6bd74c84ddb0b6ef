# Lists the recipes
default:
    @just --list

# Everything that must hold before a change lands: exactly what CI runs
ci:
    .ci/run

# The tests, or those whose name contains FILTER
test *FILTER:
    cargo test --locked {{ FILTER }}

# Clippy and formatting, as strict as CI
lint:
    cargo clippy --all-targets --locked -- -D warnings
    cargo fmt --check

# Licences, sources, duplicate versions and, with GitHub in reach, known vulnerabilities
deny:
    cargo deny --locked check

# Looks for inputs that break a property of src/fuzz.rs: of TARGET or of all, for SECONDS each
fuzz TARGET="" SECONDS="3":
    fuzz/run {{ quote(TARGET) }} {{ SECONDS }}

# The official conformance suite (PORT, DATA_DIR and RUNS in the environment)
conformance:
    ./run_conformance_tests.sh

# crane, oras, skopeo, buildah and podman against a registry that runs at ADDR
clients ADDR="127.0.0.1:5000":
    tests/clients.sh {{ ADDR }}

# The registry on ./registry-data and port 5000
run *ARGS:
    cargo run --locked -- serve {{ ARGS }}
