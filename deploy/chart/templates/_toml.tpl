{{- /* One value as TOML. Numbers of values.yaml are floats to Helm, and its own toToml writes 1 as 1.0, which is no whole number to millrace. */ -}}
{{- define "millrace.toml.value" -}}
{{- if kindIs "string" . -}}{{- toJson . -}}
{{- else if kindIs "bool" . -}}{{- . -}}
{{- else if kindIs "slice" . -}}
[{{- range $i, $item := . -}}{{- if $i -}}, {{ end -}}{{- include "millrace.toml.value" $item -}}{{- end -}}]
{{- else if kindIs "map" . -}}{{- fail (printf "millrace: a table within a table is not known here: %s" (toJson .)) -}}
{{- else if eq (float64 .) (float64 (int64 .)) -}}{{- int64 . -}}
{{- else -}}{{- toJson . -}}
{{- end -}}
{{- end -}}

{{- /* millrace.toml as the pods get it: the fleet has the StatefulSet's name, so that two releases on one Kafka do not share their topics. */ -}}
{{- define "millrace.fleet" -}}
{{- $settings := deepCopy .Values.millrace -}}
{{- $scaling := default dict $settings.scaling -}}
{{- $_ := set $settings "scaling" (merge $scaling (dict "fleet_id" (include "millrace.fullname" .))) -}}
{{- include "millrace.toml" $settings -}}
{{- end -}}

{{- define "millrace.toml" -}}
{{- range $section, $keys := . -}}
{{- if not (kindIs "invalid" $keys) }}
[{{ $section }}]
{{- range $key, $value := $keys -}}
{{- if not (kindIs "invalid" $value) }}
{{ if regexMatch "^[A-Za-z0-9_-]+$" $key }}{{ $key }}{{ else }}{{ toJson $key }}{{ end }} = {{ include "millrace.toml.value" $value }}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
