{{/* Name of the chart, for the label app.kubernetes.io/name. */}}
{{- define "redserve.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 46 | trimSuffix "-" -}}
{{- end -}}

{{/* Beginning of all names: the release's name, with the chart's unless it says so already.
46 characters leave room for "-operator-leases". */}}
{{- define "redserve.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 46 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "redserve.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 46 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 46 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Name of the operator's Deployment and of what belongs to it. */}}
{{- define "redserve.operator" -}}
{{- printf "%s-operator" (include "redserve.fullname" .) -}}
{{- end -}}

{{/* Name of the ConfigMap of one dashboard: redserve-service.json is "...-service-dashboard". */}}
{{- define "redserve.dashboard" -}}
{{- $board := base .path | trimSuffix ".json" | trimPrefix "redserve-" -}}
{{- printf "%s-%s-dashboard" (include "redserve.fullname" .root | trunc 44 | trimSuffix "-") $board -}}
{{- end -}}

{{- define "redserve.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "redserve.operator" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* What never changes in the life of a release. */}}
{{- define "redserve.selector" -}}
app.kubernetes.io/name: {{ include "redserve.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "redserve.labels" -}}
{{- $own := dict
  "app.kubernetes.io/name" (include "redserve.name" .)
  "app.kubernetes.io/instance" .Release.Name
  "app.kubernetes.io/component" "operator"
  "app.kubernetes.io/part-of" "redserve"
  "app.kubernetes.io/version" .Chart.AppVersion
  "app.kubernetes.io/managed-by" .Release.Service
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_")
-}}
{{- toYaml (mergeOverwrite (deepCopy .Values.commonLabels) $own) -}}
{{- end -}}

{{/* Reference of one image: (dict "root" $ "image" "router"). */}}
{{- define "redserve.image" -}}
{{- $images := .root.Values.images -}}
{{- $image := get $images .image -}}
{{- $name := $image.name -}}
{{- if $images.registry -}}
{{- $name = printf "%s/%s" (trimSuffix "/" $images.registry) $name -}}
{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (coalesce $image.tag $images.tag .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* Kind of the monitor that is made; empty for none. */}}
{{- define "redserve.monitor" -}}
{{- if eq .Values.metrics.monitor "Auto" -}}
{{- if .Capabilities.APIVersions.Has "monitoring.coreos.com/v1/ServiceMonitor" -}}
ServiceMonitor
{{- end -}}
{{- else if ne .Values.metrics.monitor "None" -}}
{{- .Values.metrics.monitor -}}
{{- end -}}
{{- end -}}
