using System.Management.Automation;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>A VM as a parameter takes it: the object from Get-KvmVm, or the name of a VM on one of the connected hosts.</summary>
public sealed class VmReference
{
    private readonly KvmVm? _vm;
    private readonly string _name;

    /// <summary>A VM by its object.</summary>
    public VmReference(KvmVm vm)
    {
        _vm = vm;
        _name = vm.Name;
    }

    /// <summary>A VM by its name; looked up on all connected hosts when it is used.</summary>
    public VmReference(string name) => _name = name;

    /// <inheritdoc/>
    public override string ToString() => _name;

    /// <summary>Whether this is a name with wildcards: of those, none may match. A VM's object means its very name.</summary>
    internal bool IsPattern => _vm is null && WildcardPattern.ContainsWildcardCharacters(_name);

    /// <summary>Picks what is about the VMs that are meant, whether they run any more or not.</summary>
    /// <param name="all">What there is.</param>
    /// <param name="nameOf">The name of its VM.</param>
    internal T[] Pick<T>(IEnumerable<T> all, Func<T, string> nameOf)
    {
        if (IsPattern)
        {
            var pattern = new WildcardPattern(_name, WildcardOptions.IgnoreCase);
            return [.. all.Where(a => pattern.IsMatch(nameOf(a)))];
        }

        T[] found = [.. all.Where(a => string.Equals(nameOf(a), _name, StringComparison.OrdinalIgnoreCase))];

        // QEMU tells big letters from small: where both are there, the one that was written is meant.
        return found.Any(a => nameOf(a) == _name) ? [.. found.Where(a => nameOf(a) == _name)] : found;
    }

    /// <summary>The VM's object.</summary>
    /// <exception cref="FCtransException">VmNotFound, VmAmbiguous, HostNotConnected.</exception>
    private async Task<KvmVm> ResolveAsync(CancellationToken cancellation)
    {
        if (_vm is not null)
        {
            return _vm.KvmHost.IsDisconnected ? throw Failure.HostNotConnected(_vm.KvmHost.Name) : _vm;
        }

        return One(_name, await SearchAsync(cancellation).ConfigureAwait(false));
    }

    /// <summary>The VMs' objects: one, or all that a name with wildcards matches, by their names; none is no error then.</summary>
    /// <exception cref="FCtransException">VmNotFound, VmAmbiguous, HostNotConnected.</exception>
    internal async Task<KvmVm[]> ResolveAllAsync(CancellationToken cancellation)
    {
        if (!IsPattern)
        {
            return [await ResolveAsync(cancellation).ConfigureAwait(false)];
        }

        KvmVm[] found = await SearchAsync(cancellation).ConfigureAwait(false);

        // Two VMs of one name on two hosts are both meant here; one VM that is being moved is still one.
        return [.. found.GroupBy(v => (v.Name, v.SplitId.Length > 0 ? v.SplitId : v.HostName)).Select(g => One(g.Key.Name, [.. g]))
            .OrderBy(v => v.Name, StringComparer.OrdinalIgnoreCase)];
    }

    private Task<KvmVm[]> SearchAsync(CancellationToken cancellation) => HostRegistry.SearchAsync(
        h => h.ListVmsAsync(cancellation),
        all => Pick(all.SelectMany(p => p.Answer.Select(v => new KvmVm(p.Host, v))), v => v.Name));

    private static KvmVm One(string name, KvmVm[] found)
    {
        // While a VM is moved, its main host has a QEMU of the same name that waits for it: one VM all the same.
        if (found.Length > 1 && found[0].SplitId.Length > 0 && found.All(v => v.SplitId == found[0].SplitId))
        {
            return found.FirstOrDefault(v => v.State == "running") ?? found[0];
        }

        return found.Length switch
        {
            1 => found[0],
            0 => throw Failure.VmNotFound(name, "any connected host"),
            _ => throw Failure.VmAmbiguous(name, string.Join(", ", found.Select(v => v.HostName))),
        };
    }
}
