# Get-Help: every cmdlet and parameter is described, and the examples are ones that PowerShell understands.

BeforeDiscovery {
    $root = [IO.Path]::GetFullPath([IO.Path]::Combine($PSScriptRoot, '..', '..'))
    Import-Module ([IO.Path]::Combine($root, 'out', 'FCtrans', 'FCtrans.psd1'))
    $cmdlets = @((Get-Module FCtrans).ExportedCmdlets.Keys)
}

BeforeAll {
    $root = [IO.Path]::GetFullPath([IO.Path]::Combine($PSScriptRoot, '..', '..'))
    Import-Module ([IO.Path]::Combine($root, 'out', 'FCtrans', 'FCtrans.psd1'))
    $common = @([Management.Automation.PSCmdlet]::CommonParameters) + @([Management.Automation.PSCmdlet]::OptionalCommonParameters)

    function Get-Text($Description) { @($Description | ForEach-Object { $_.Text }) -join ' ' }
}

Describe 'The help of <_>' -ForEach $cmdlets {
    BeforeAll {
        $name = $_
        $help = Get-Help $name -Full
    }

    It 'has a synopsis and a description' {
        $help.Synopsis | Should -Not -BeNullOrEmpty
        $help.Synopsis | Should -Not -BeLike "*$name*"
        (Get-Text $help.Description).Length | Should -BeGreaterThan 80
    }

    It 'describes each parameter' {
        $described = @($help.Parameters.Parameter)
        foreach ($parameter in @((Get-Command $name).Parameters.Values | Where-Object { $common -notcontains $_.Name })) {
            $found = @($described | Where-Object Name -EQ $parameter.Name)
            if ($found.Count -ne 1 -or -not (Get-Text $found[0].Description)) { throw "-$($parameter.Name) is not described." }
        }
    }

    It 'has three examples or more, of which each is understood' {
        $examples = @($help.Examples.Example)
        $examples.Count | Should -BeGreaterOrEqual 3
        foreach ($example in $examples) {
            $failures = $null
            $ast = [Management.Automation.Language.Parser]::ParseInput($example.Code, [ref] $null, [ref] $failures)
            @($failures) | Should -HaveCount 0
            $example.Code | Should -BeLike "*$name*"
            foreach ($call in $ast.FindAll({ $args[0] -is [Management.Automation.Language.CommandAst] }, $true)) {
                $called = $call.GetCommandName()
                if (-not (Get-Command $called -Module FCtrans -ErrorAction Ignore)) { continue }
                $binding = [Management.Automation.Language.StaticParameterBinder]::BindCommand($call, $true)
                foreach ($wrong in $binding.BindingExceptions.GetEnumerator()) {
                    throw "'$($example.Code)': $($wrong.Key): $($wrong.Value.BindingException.Message)"
                }
            }
        }
    }

    It 'has a page of its own in docs/reference that says the same' {
        $page = [IO.File]::ReadAllText([IO.Path]::Combine($root, 'docs', 'reference', "$name.md"))
        $page | Should -BeLike "*$([WildcardPattern]::Escape($help.Synopsis))*"
        foreach ($example in @($help.Examples.Example)) { $page.Contains($example.Code) | Should -BeTrue }
    }

    It 'leads to cmdlets and topics that exist' {
        foreach ($link in @($help.RelatedLinks.NavigationLink.LinkText)) {
            if ($link -like 'about_*') { [IO.File]::Exists([IO.Path]::Combine($root, 'out', 'FCtrans', 'en-US', "$link.help.txt")) | Should -BeTrue }
            else { (Get-Command $link -ErrorAction Ignore).Name | Should -Be $link }
        }
    }
}

Describe 'about_FCtrans' {
    It 'is found' {
        "$(Get-Help about_FCtrans)" | Should -BeLike '*split migration*'
    }
}
