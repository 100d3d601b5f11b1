//go:build race

package vk_test

// raced: the race detector keeps memory of its own for all that the process has ever touched.
const raced = true
