{{/* The labels by which the gateways of a release are found. */}}
{{- define "portcullis.selector" -}}
app.kubernetes.io/name: portcullis
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* What is said of every resource. */}}
{{- define "portcullis.labels" -}}
{{ include "portcullis.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* The name of every resource: that of the release. */}}
{{- define "portcullis.name" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}
