// A module of its own, so that the root module's zip, which `go get` downloads, leaves this folder out.
module github.com/colt5-vulkan/colt5/internal/faults/testdata

go 1.24.0
