// Package monitoring keeps the types of the Prometheus operator in go.mod: their definitions are
// generated from them.
package monitoring

import _ "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
