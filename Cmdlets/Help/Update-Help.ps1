<#
.SYNOPSIS
Makes a module's help: what Get-Help shows, and the reference pages. Both come from the same three places, so they can't say
different things: the cmdlets themselves (syntax, types, aliases), the comments on their parameters, and the text beside this
script, a file for each cmdlet.

.DESCRIPTION
A cmdlet's file NAME.md is plain Markdown in this order:

    One paragraph: the synopsis.

    Further paragraphs: the description.

    ## Examples
    ### A title
    ```powershell
    The code
    ```
    Paragraphs about it.

    ## Notes             (may be left out)
    ## Related links     (a line each: a cmdlet, or a topic such as about_FCtrans)

Returns a text for each thing that is missing: a cmdlet without a file, fewer than three examples, a parameter without a comment.

.PARAMETER ModulePath
The module to describe.

.PARAMETER Documentation
The XML file of comments that the compiler wrote for its assembly.

.PARAMETER Output
The folder for FCtrans.Cmdlets.dll-Help.xml (MAML).

.PARAMETER Reference
The folder for the reference pages.
#>
param(
    [Parameter(Mandatory)] [string] $ModulePath,
    [Parameter(Mandatory)] [string] $Documentation,
    [Parameter(Mandatory)] [string] $Output,
    [Parameter(Mandatory)] [string] $Reference
)

Set-StrictMode -Version 3
$ErrorActionPreference = 'Stop'

$maml = 'http://schemas.microsoft.com/maml/2004/10'
$command = 'http://schemas.microsoft.com/maml/dev/command/2004/10'
$dev = 'http://schemas.microsoft.com/maml/dev/2004/10'
$common = @([Management.Automation.PSCmdlet]::CommonParameters) + @([Management.Automation.PSCmdlet]::OptionalCommonParameters)
$risk = [ordered] @{
    WhatIf  = 'Says what would be done and does nothing.'
    Confirm = 'Asks before it does anything.'
}
$problems = [Collections.Generic.List[string]]::new()

#region Reading

<# The compiler's comments: id -> text, with <see/>, <c/> and the like as plain words. #>
function Read-Documentation([string] $Path) {
    $document = [Xml.XmlDocument]::new()
    $document.PreserveWhitespace = $true
    $document.Load($Path)
    $texts = @{}
    foreach ($member in $document.SelectNodes('/doc/members/member')) {
        $summary = $member.SelectSingleNode('summary')
        if (-not $summary) { continue }
        foreach ($reference in @($summary.SelectNodes('.//see | .//paramref'))) {
            $name = ($reference.GetAttribute('cref') + $reference.GetAttribute('name') + $reference.GetAttribute('langword')) -replace '^.*[.:]', ''
            $null = $reference.ParentNode.ReplaceChild($document.CreateTextNode($name), $reference)
        }

        foreach ($code in @($summary.SelectNodes('.//c'))) {
            $null = $code.ParentNode.ReplaceChild($document.CreateTextNode('`' + $code.InnerText + '`'), $code)
        }

        $texts[$member.GetAttribute('name')] = ($summary.InnerText -replace '\s+', ' ').Trim()
    }

    $texts
}

<# A cmdlet's Markdown file, taken apart. #>
function Read-HelpText([string] $Path, [string] $Name) {
    $result = [pscustomobject] @{ Synopsis = ''; Description = ''; Examples = [Collections.Generic.List[object]]::new(); Notes = ''; Links = @() }
    if (-not [IO.File]::Exists($Path)) {
        $problems.Add("${Name}: there is no Cmdlets/Help/$Name.md with its synopsis, description and examples.")
        return $result
    }

    $text = [IO.File]::ReadAllText($Path).Replace("`r", '')
    $parts = [regex]::Split("`n$text", '(?m)^## (.+)$')
    $head = $parts[0].Trim()
    $end = $head.IndexOf("`n`n")
    $result.Synopsis = (($end -lt 0 ? $head : $head.Substring(0, $end)) -replace '\s+', ' ')
    $result.Description = $end -lt 0 ? '' : $head.Substring($end).Trim()
    for ($i = 1; $i -lt $parts.Count; $i += 2) {
        $body = $parts[$i + 1].Trim()
        switch ($parts[$i].Trim()) {
            'Examples' {
                foreach ($match in [regex]::Matches($body, '(?ms)^### (?<title>[^\n]+)\n+```powershell\n(?<code>.*?)\n```\n*(?<remarks>.*?)(?=^### |\z)')) {
                    $result.Examples.Add([pscustomobject] @{
                            Title = $match.Groups['title'].Value.Trim(); Code = $match.Groups['code'].Value; Remarks = $match.Groups['remarks'].Value.Trim()
                        })
                }
            }
            'Notes' { $result.Notes = $body }
            'Related links' { $result.Links = @($body -split "`n" | ForEach-Object { $_.Trim(' ', '-', '*') } | Where-Object { $_ }) }
            default { $problems.Add("${Name}: its help has a section '$_' that has no meaning.") }
        }
    }

    if ($result.Examples.Count -lt 3) { $problems.Add("${Name}: its help has $($result.Examples.Count) examples; at least three are wanted.") }
    if (-not $result.Description) { $problems.Add("${Name}: its help has no description.") }
    $result
}

<# A type as people write it: MemorySize, string[], switch. #>
function Get-TypeText([type] $Type) {
    $element = $Type.IsArray ? $Type.GetElementType() : $Type
    $element = [Nullable]::GetUnderlyingType($element) ?? $element
    $plain = switch ($element.Name) {
        'SwitchParameter' { 'SwitchParameter' }
        'KvmHostReference' { 'KvmHost' }
        'VmReference' { 'KvmVm' }
        default { $_ }
    }
    $plain + ($Type.IsArray ? '[]' : '')
}

function Get-Parameter([Management.Automation.CommandInfo] $Cmdlet, [hashtable] $Comments) {
    $type = $Cmdlet.ImplementingType
    $object = try { [Activator]::CreateInstance($type) } catch { $null }
    foreach ($name in $Cmdlet.Parameters.Keys) {
        if ($common -contains $name -and -not $risk.Contains($name)) { continue }
        $parameter = $Cmdlet.Parameters[$name]
        $sets = @($Cmdlet.ParameterSets | ForEach-Object { $_.Parameters | Where-Object Name -EQ $name })
        $text = $risk[$name]
        for ($at = $type; -not $text -and $at; $at = $at.BaseType) { $text = $Comments["P:$($at.FullName).$name"] }
        if (-not $text) { $problems.Add("$($Cmdlet.Name): its parameter -$name has no comment.") }
        $default = ''
        if ($object -and -not $risk.Contains($name) -and $parameter.ParameterType -ne [Management.Automation.SwitchParameter]) {
            $value = $object.GetType().GetProperty($name).GetValue($object)
            if ($value -is [array]) { $default = @($value) -join ', ' }
            elseif ($null -ne $value -and "$value" -ne '' -and -not ($value -is [ValueType] -and $value.Equals([Activator]::CreateInstance($value.GetType())))) { $default = "$value" }
        }
        elseif ($object -and $parameter.ParameterType -eq [Management.Automation.SwitchParameter] -and -not $risk.Contains($name)) {
            $default = "$([bool] $object.GetType().GetProperty($name).GetValue($object))"
        }

        $positions = @($sets | Where-Object Position -GE 0 | ForEach-Object { $_.Position })
        $pipeline = @(
            if (@($sets | Where-Object ValueFromPipeline).Count) { 'ByValue' }
            if (@($sets | Where-Object ValueFromPipelineByPropertyName).Count) { 'ByPropertyName' }
        )
        [pscustomobject] @{
            Name = $name; Type = Get-TypeText $parameter.ParameterType; Text = "$text"; Default = $default
            Required = @($sets | Where-Object IsMandatory).Count -eq $Cmdlet.ParameterSets.Count
            Position = $positions.Count ? "$($positions[0])" : 'named'
            Pipeline = $pipeline.Count ? "true ($($pipeline -join ', '))" : 'false'
            Wildcards = @($parameter.Attributes | Where-Object { $_ -is [Management.Automation.SupportsWildcardsAttribute] }).Count -gt 0
            Aliases = @($parameter.Aliases)
            Values = @($parameter.Attributes | Where-Object { $_ -is [Management.Automation.ValidateSetAttribute] } | ForEach-Object { $_.ValidValues })
            Range = @($parameter.Attributes | Where-Object { $_ -is [Management.Automation.ValidateRangeAttribute] } | ForEach-Object { "$($_.MinRange) to $($_.MaxRange)" }) -join ''
        }
    }
}

#endregion
#region MAML

function Write-Text([Xml.XmlWriter] $Xml, [string] $Text) {
    # Get-Help shows plain text: Markdown's marks would only be in the way.
    foreach ($paragraph in [regex]::Split($Text, "\n{2,}")) {
        $plain = $paragraph -replace '\[([^\]]+)\]\([^)]+\)', '$1' -replace '\*\*|`', ''
        if ($plain -notmatch '(?m)^([-*|]| {2,})') { $plain = $plain -replace '\s*\n\s*', ' ' }
        $Xml.WriteElementString('para', $maml, $plain.Trim())
    }
}

function Write-Parameter([Xml.XmlWriter] $Xml, $Parameter, [string] $Position, [bool] $Required) {
    $Xml.WriteStartElement('parameter', $command)
    $Xml.WriteAttributeString('required', "$Required".ToLowerInvariant())
    $Xml.WriteAttributeString('variableLength', "$($Parameter.Type.EndsWith('[]'))".ToLowerInvariant())
    $Xml.WriteAttributeString('globbing', "$($Parameter.Wildcards)".ToLowerInvariant())
    $Xml.WriteAttributeString('pipelineInput', $Parameter.Pipeline)
    $Xml.WriteAttributeString('position', $Position)
    $Xml.WriteAttributeString('aliases', ($Parameter.Aliases.Count ? $Parameter.Aliases -join ', ' : 'none'))
    $Xml.WriteElementString('name', $maml, $Parameter.Name)
    $Xml.WriteStartElement('description', $maml)
    Write-Text $Xml $Parameter.Text
    $Xml.WriteEndElement()
    if ($Parameter.Values.Count) {
        $Xml.WriteStartElement('parameterValueGroup', $command)
        foreach ($value in $Parameter.Values) {
            $Xml.WriteStartElement('parameterValue', $command)
            $Xml.WriteAttributeString('required', 'false')
            $Xml.WriteAttributeString('variableLength', 'false')
            $Xml.WriteString($value)
            $Xml.WriteEndElement()
        }

        $Xml.WriteEndElement()
    }

    if ($Parameter.Type -ne 'SwitchParameter') {
        $Xml.WriteStartElement('parameterValue', $command)
        $Xml.WriteAttributeString('required', 'true')
        $Xml.WriteAttributeString('variableLength', "$($Parameter.Type.EndsWith('[]'))".ToLowerInvariant())
        $Xml.WriteString($Parameter.Type)
        $Xml.WriteEndElement()
    }

    $Xml.WriteStartElement('type', $dev)
    $Xml.WriteElementString('name', $maml, $Parameter.Type)
    $Xml.WriteEndElement()
    $Xml.WriteElementString('defaultValue', $dev, $Parameter.Default)
    $Xml.WriteEndElement()
}

function Write-Types([Xml.XmlWriter] $Xml, [string] $List, [string] $Item, [object[]] $Types) {
    $Xml.WriteStartElement($List, $command)
    foreach ($type in $Types) {
        $Xml.WriteStartElement($Item, $command)
        $Xml.WriteStartElement('type', $dev)
        $Xml.WriteElementString('name', $maml, $type.Name)
        $Xml.WriteEndElement()
        $Xml.WriteStartElement('description', $maml)
        Write-Text $Xml $type.Text
        $Xml.WriteEndElement()
        $Xml.WriteEndElement()
    }

    $Xml.WriteEndElement()
}

function Write-Maml([Xml.XmlWriter] $Xml, $Entry) {
    $Xml.WriteStartElement('command', 'command', $command)
    $Xml.WriteAttributeString('xmlns', 'maml', $null, $maml)
    $Xml.WriteAttributeString('xmlns', 'dev', $null, $dev)
    $Xml.WriteStartElement('details', $command)
    $Xml.WriteElementString('name', $command, $Entry.Name)
    $Xml.WriteElementString('verb', $command, $Entry.Name.Split('-')[0])
    $Xml.WriteElementString('noun', $command, $Entry.Name.Split('-')[1])
    $Xml.WriteStartElement('description', $maml)
    Write-Text $Xml $Entry.Help.Synopsis
    $Xml.WriteEndElement()
    $Xml.WriteEndElement()
    $Xml.WriteStartElement('description', $maml)
    Write-Text $Xml $Entry.Help.Description
    $Xml.WriteEndElement()

    $Xml.WriteStartElement('syntax', $command)
    foreach ($set in $Entry.Cmdlet.ParameterSets) {
        $Xml.WriteStartElement('syntaxItem', $command)
        $Xml.WriteElementString('name', $maml, $Entry.Name)
        $ordered = @($set.Parameters | Where-Object Position -GE 0) + @($set.Parameters | Where-Object { $_.Position -lt 0 -and $_.IsMandatory }) +
            @($set.Parameters | Where-Object { $_.Position -lt 0 -and -not $_.IsMandatory })
        foreach ($parameter in $ordered) {
            $described = @($Entry.Parameters | Where-Object Name -EQ $parameter.Name)
            if ($described) { Write-Parameter $Xml $described[0] ($parameter.Position -ge 0 ? "$($parameter.Position)" : 'named') $parameter.IsMandatory }
        }

        $Xml.WriteEndElement()
    }

    $Xml.WriteEndElement()
    $Xml.WriteStartElement('parameters', $command)
    foreach ($parameter in $Entry.Parameters) { Write-Parameter $Xml $parameter $parameter.Position $parameter.Required }
    $Xml.WriteEndElement()
    Write-Types $Xml 'inputTypes' 'inputType' $Entry.Inputs
    Write-Types $Xml 'returnValues' 'returnValue' $Entry.Outputs
    if ($Entry.Help.Notes) {
        $Xml.WriteStartElement('alertSet', $maml)
        $Xml.WriteStartElement('alert', $maml)
        Write-Text $Xml $Entry.Help.Notes
        $Xml.WriteEndElement()
        $Xml.WriteEndElement()
    }

    $Xml.WriteStartElement('examples', $command)
    $number = 0
    foreach ($example in $Entry.Help.Examples) {
        $number++
        $Xml.WriteStartElement('example', $command)
        $Xml.WriteElementString('title', $maml, "-------- Example ${number}: $($example.Title) --------")
        $Xml.WriteElementString('code', $dev, $example.Code)
        $Xml.WriteStartElement('remarks', $dev)
        Write-Text $Xml $example.Remarks
        $Xml.WriteEndElement()
        $Xml.WriteEndElement()
    }

    $Xml.WriteEndElement()
    $Xml.WriteStartElement('relatedLinks', $command)
    foreach ($link in $Entry.Help.Links) {
        $Xml.WriteStartElement('navigationLink', $maml)
        $Xml.WriteElementString('linkText', $maml, $link)
        $Xml.WriteElementString('uri', $maml, '')
        $Xml.WriteEndElement()
    }

    $Xml.WriteEndElement()
    $Xml.WriteEndElement()
}

#endregion
#region Reference pages

function Get-ReferencePage($Entry, [hashtable] $Comments) {
    $lines = [Collections.Generic.List[string]]::new()
    $lines.Add("# $($Entry.Name)`n")
    $lines.Add("<!-- Made by the build from Cmdlets/Help/$($Entry.Name).md and the cmdlet itself: change those. -->`n")
    $lines.Add("$($Entry.Help.Synopsis)`n")
    $lines.Add("## Syntax`n")
    $lines.Add('```')
    foreach ($set in $Entry.Cmdlet.ParameterSets) { $lines.Add("$($Entry.Name) $($set.ToString())".Replace('KvmHostReference', 'KvmHost').Replace('VmReference', 'KvmVm')) }
    $lines.Add("```````n")
    $lines.Add("## Description`n")
    $lines.Add("$($Entry.Help.Description)`n")
    $lines.Add("## Examples`n")
    foreach ($example in $Entry.Help.Examples) {
        $lines.Add("### $($example.Title)`n")
        $lines.Add("``````powershell`n$($example.Code)`n```````n")
        if ($example.Remarks) { $lines.Add("$($example.Remarks)`n") }
    }

    $lines.Add("## Parameters`n")
    foreach ($parameter in $Entry.Parameters) {
        $lines.Add("### -$($parameter.Name)`n")
        $lines.Add("$($parameter.Text)`n")
        $facts = @(
            "Type: ``$($parameter.Type)``"
            if ($parameter.Values.Count) { "Values: $($parameter.Values -join ', ')" }
            if ($parameter.Range) { "Range: $($parameter.Range)" }
            if ($parameter.Aliases.Count) { "Aliases: $($parameter.Aliases -join ', ')" }
            "Required: $($parameter.Required ? 'yes' : 'no')"
            "Position: $($parameter.Position)"
            if ($parameter.Default) { "Default: $($parameter.Default)" }
            "Pipeline: $($parameter.Pipeline -replace '^true \((.*)\)$', '$1' -replace '^false$', 'no')"
            if ($parameter.Wildcards) { 'Wildcards: yes' }
        )
        $lines.Add("$($facts -join ' · ')`n")
    }

    $lines.Add("The common parameters (``-Verbose``, ``-ErrorAction``, …) work as everywhere: see ``Get-Help about_CommonParameters``.`n")
    $lines.Add("## Input`n")
    $lines.Add((@($Entry.Inputs | ForEach-Object { "- ``$($_.Name)``: $($_.Text)" }) -join "`n") + "`n")
    $lines.Add("## Output`n")
    foreach ($output in $Entry.Outputs) {
        $lines.Add("``$($output.Name)``: $($output.Text)`n")
        if (-not $output.Type -or $output.Type.Namespace -notlike 'FCtrans*') { continue }
        Add-PropertyTable $lines $output.Type $Comments
    }

    foreach ($part in @(Get-PartType @($Entry.Outputs | ForEach-Object { $_.Type } | Where-Object { $_ }))) {
        $lines.Add("### $($part.Name)`n")
        $lines.Add("$($Comments["T:$($part.FullName)"])`n")
        if ($part.IsEnum) {
            $lines.Add((@([Enum]::GetNames($part) | ForEach-Object { "- ``$_``: $($Comments["F:$($part.FullName).$_"])" }) -join "`n") + "`n")
        }
        else { Add-PropertyTable $lines $part $Comments }
    }

    if ($Entry.Help.Notes) { $lines.Add("## Notes`n`n$($Entry.Help.Notes)`n") }
    $lines.Add("## Related`n")
    foreach ($link in $Entry.Help.Links) {
        $lines.Add($link -like 'about_*' ? "- ``Get-Help $link``" : "- [$link]($link.md)")
    }

    ($lines -join "`n").TrimEnd() + "`n"
}

<# The table of what an object has. #>
function Add-PropertyTable([Collections.Generic.List[string]] $Lines, [type] $Type, [hashtable] $Comments) {
    $Lines.Add("| property | type | |`n| --- | --- | --- |")
    foreach ($property in $Type.GetProperties([Reflection.BindingFlags] 'Instance, Public, DeclaredOnly')) {
        # What it has from a class of PowerShell's is described there.
        if ($property.GetMethod.GetBaseDefinition() -ne $property.GetMethod) { continue }
        $text = "$($Comments["P:$($Type.FullName).$($property.Name)"])".Replace('|', '\|')
        if ($text) { $Lines.Add("| ``$($property.Name)`` | $(Get-PropertyTypeText $property.PropertyType) | $text |") }
        else { $problems.Add("$($Type.Name).$($property.Name) has no comment.") }
    }

    $Lines.Add('')
}

<# The types of ours that objects of these types have in them, at whatever depth, but for those that a cmdlet gives: they have a page. #>
function Get-PartType([type[]] $Types) {
    $given = @($entries | ForEach-Object { $_.Outputs } | ForEach-Object { $_.Type })
    $found = [Collections.Generic.List[type]]::new()
    $next = [Collections.Generic.Queue[type]]::new()
    foreach ($type in $Types) { $next.Enqueue($type) }
    while ($next.Count) {
        foreach ($property in $next.Dequeue().GetProperties([Reflection.BindingFlags] 'Instance, Public, DeclaredOnly')) {
            $part = $property.PropertyType
            if ($part.IsGenericType) { $part = $part.GetGenericArguments()[0] }
            if ($part.IsArray) { $part = $part.GetElementType() }
            if ($part.Namespace -ne 'FCtrans' -or $given -contains $part -or $found.Contains($part)) { continue }
            $found.Add($part)
            if (-not $part.IsEnum) { $next.Enqueue($part) }
        }
    }

    $found
}

function Get-PropertyTypeText([type] $Type) {
    if ($Type.IsGenericType) {
        $argument = Get-PropertyTypeText $Type.GetGenericArguments()[0]
        return $Type.Name -like 'Nullable*' ? $argument : "$argument[]"
    }

    $Type.IsArray ? "$(Get-PropertyTypeText $Type.GetElementType())[]" : $Type.Name
}

<# Leaves a file alone that is right already: its time says when it changed. #>
function Write-Whole([string] $Path, [string] $Text) {
    if ([IO.File]::Exists($Path) -and [IO.File]::ReadAllText($Path) -eq $Text) { return }
    $null = [IO.Directory]::CreateDirectory([IO.Path]::GetDirectoryName($Path))
    [IO.File]::WriteAllText($Path, $Text)
}

#endregion

$comments = Read-Documentation $Documentation
$module = Import-Module $ModulePath -PassThru
$entries = @(foreach ($name in @($module.ExportedCmdlets.Keys)) {
        $cmdlet = $module.ExportedCmdlets[$name]
        $parameters = @(Get-Parameter $cmdlet $comments)
        $outputs = @($cmdlet.OutputType | ForEach-Object {
                $text = $_.Name -eq 'System.Void' ? 'Nothing.' : $_.Type ? $comments["T:$($_.Type.FullName)"] : ''
                [pscustomobject] @{ Name = $_.Name -eq 'System.Void' ? 'None' : $_.Name; Type = $_.Type; Text = "$text" }
            })
        $inputs = @($parameters | Where-Object { $_.Pipeline -ne 'false' } | ForEach-Object {
                [pscustomobject] @{ Name = $_.Type; Text = "-$($_.Name): $($_.Pipeline -replace '^true \((.*)\)$', '$1')." }
            })
        if (-not $inputs) { $inputs = @([pscustomobject] @{ Name = 'None'; Text = 'It takes nothing from the pipeline.' }) }
        if (-not $outputs) { $problems.Add("${name}: it does not say what it gives (OutputType).") }
        [pscustomobject] @{
            Name = $name; Cmdlet = $cmdlet; Parameters = $parameters; Inputs = $inputs; Outputs = $outputs
            Help = Read-HelpText ([IO.Path]::Combine($PSScriptRoot, "$name.md")) $name
        }
    })
$names = [string[]] @($entries.Name)
[Array]::Sort($names, [StringComparer]::Ordinal)
$entries = @($names | ForEach-Object { $name = $_; $entries | Where-Object Name -EQ $name })

$buffer = [IO.StringWriter]::new()
$settings = [Xml.XmlWriterSettings]::new()
$settings.Indent = $true
$settings.NewLineChars = "`n"
$settings.OmitXmlDeclaration = $true
$xml = [Xml.XmlWriter]::Create($buffer, $settings)
$xml.WriteStartElement('helpItems', 'http://msh')
$xml.WriteAttributeString('schema', 'maml')
foreach ($entry in $entries) { Write-Maml $xml $entry }
$xml.WriteEndElement()
$xml.Flush()
$pages = [ordered] @{}
foreach ($entry in $entries) { $pages["$($entry.Name).md"] = Get-ReferencePage $entry $comments }
$index = @("# Reference`n", "<!-- Made by the build: see Cmdlets/Help. -->`n", "| cmdlet | what it does |`n| --- | --- |") +
    @($entries | ForEach-Object { "| [$($_.Name)]($($_.Name).md) | $($_.Help.Synopsis) |" })
$pages['README.md'] = ($index -join "`n") + "`n"

Write-Whole ([IO.Path]::Combine($Output, 'FCtrans.Cmdlets.dll-Help.xml')) "<?xml version=""1.0"" encoding=""utf-8""?>`n$($buffer.ToString())`n"
foreach ($page in $pages.Keys) { Write-Whole ([IO.Path]::Combine($Reference, $page)) $pages[$page] }
foreach ($old in [IO.Directory]::GetFiles($Reference, '*.md')) {
    if (-not $pages.Contains([IO.Path]::GetFileName($old))) { [IO.File]::Delete($old) }
}

$problems
