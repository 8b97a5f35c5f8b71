{{- define "millrace.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- /* A pod's name is a label too: 63 characters with -ORDINAL and the controller's hash. */ -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "millrace.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "millrace.labels" -}}
{{ include "millrace.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "millrace.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "millrace.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "millrace.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* One of the workers measures and says what it decides: elected by the Lease. */ -}}
{{- define "millrace.leads" -}}
{{- if has (dig "scaling" "mode" "off" .Values.millrace) (list "kubernetes" "observe") -}}true{{- end -}}
{{- end -}}

{{- /* And does it. */ -}}
{{- define "millrace.scales" -}}
{{- if eq (dig "scaling" "mode" "off" .Values.millrace) "kubernetes" -}}true{{- end -}}
{{- end -}}

{{- define "millrace.port" -}}
{{- regexFind "[0-9]+$" .Values.millrace.worker.listen -}}
{{- end -}}

{{- /* Lengths of time as millrace.toml has them ("1m 30s"), in whole seconds, rounded up. */ -}}
{{- define "millrace.seconds" -}}
{{- $units := dict "ms" 0.001 "s" 1.0 "sec" 1.0 "secs" 1.0 "second" 1.0 "seconds" 1.0 "m" 60.0 "min" 60.0 "mins" 60.0 "minute" 60.0 "minutes" 60.0 "h" 3600.0 -}}
{{- $sum := 0.0 -}}
{{- range regexFindAll "[0-9]+ *[a-z]+" . -1 -}}
{{- $unit := regexFind "[a-z]+" . -}}
{{- if not (hasKey $units $unit) -}}{{- fail (printf "`%s` is no length of time such as 20s: set terminationGracePeriodSeconds yourself" .) -}}{{- end -}}
{{- $sum = addf $sum (mulf (regexFind "[0-9]+" . | float64) (get $units $unit)) -}}
{{- end -}}
{{- ceil $sum | int64 -}}
{{- end -}}

{{- define "millrace.grace" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- $deadline := include "millrace.seconds" (dig "worker" "shutdown_deadline" "20s" .Values.millrace) | int64 -}}
{{- add (mul 2 $deadline) 20 -}}
{{- else -}}
{{- .Values.terminationGracePeriodSeconds | int64 -}}
{{- end -}}
{{- end -}}
