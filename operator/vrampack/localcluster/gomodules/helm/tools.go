//go:build tools

// Package tools names the command that is built, so that its module stays in go.mod.
package tools

import _ "helm.sh/helm/v4/cmd/helm"
