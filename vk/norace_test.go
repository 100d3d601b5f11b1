//go:build !race

package vk_test

const raced = false
