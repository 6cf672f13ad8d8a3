{{/* OperatorSettings of redserve/spec/settings.py as environment variables. */}}
{{- define "redserve.env" -}}
- name: REDSERVE_OPERATOR_IDENTITY
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: REDSERVE_OPERATOR_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
{{- $settings := list
  (list "WATCH_NAMESPACES" (toJson .Values.watchNamespaces))
  (list "ROUTER_IMAGE" (include "redserve.image" (dict "root" . "image" "router")))
  (list "ENCODER_IMAGE" (include "redserve.image" (dict "root" . "image" "encoder")))
  (list "LLM_IMAGE" (include "redserve.image" (dict "root" . "image" "llm")))
  (list "IMAGE_PULL_POLICY" .Values.images.pullPolicy)
  (list "IMAGE_PULL_SECRETS" (toJson .Values.images.pullSecrets))
  (list "MONITORING_LABELS" (toJson .Values.monitoring.labels))
  (list "RUNBOOKS_URL" .Values.monitoring.runbooksURL)
  (list "LEADER_ELECTION" .Values.leaderElection.enabled)
  (list "LEASE_NAME" (include "redserve.operator" .))
  (list "LEASE_DURATION_S" .Values.leaderElection.leaseDurationSeconds)
  (list "LEASE_RENEW_S" .Values.leaderElection.renewSeconds)
  (list "NUM_WORKERS" .Values.operator.workers)
  (list "DEBOUNCE_S" (divf .Values.operator.debounceMilliseconds 1000))
  (list "RESYNC_S" .Values.operator.resyncSeconds)
  (list "REQUEST_TIMEOUT_S" .Values.operator.requestTimeoutSeconds)
  (list "STUCK_AFTER_S" .Values.operator.stuckAfterSeconds)
  (list "HTTP_PORT" .Values.operator.httpPort)
  (list "LOG_LEVEL" .Values.operator.logLevel)
  (list "LOG_FORMAT" .Values.operator.logFormat)
}}
{{- range $settings }}
- name: REDSERVE_OPERATOR_{{ index . 0 }}
  value: {{ index . 1 | toString | quote }}
{{- end }}
{{- end -}}
