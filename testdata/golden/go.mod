// The golden cases are a module of their own, so that the root module's zip, which `go get` downloads, leaves out their 13 MB.
module github.com/colt5-vulkan/colt5/testdata/golden

go 1.24.0
