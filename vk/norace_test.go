//go:build !race

package vk_test

const raceDetector = false
